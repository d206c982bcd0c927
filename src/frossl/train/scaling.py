"""Loss scaling, without which gradients in float16 come out as zero."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

START, LEAST, MOST = 2.0**16, 1.0, 2.0**24
GROW_EVERY = 2000
"""Steps without an overflow after which the scale is doubled, as in torch's GradScaler."""


class LossScale:
    """The factor of the loss before it goes backward. ``state`` is the scale and the steps since it last changed.

    An overflow is a gradient that is not finite where the loss is: the step is left out and the scale halved. At scale
    :data:`LEAST`, which scales nothing, such a gradient is no overflow, and no other comes before that. All is decided
    on the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.state = torch.zeros(2, device=device)
        self.state[0] = START

    def scaled(self, loss: Tensor) -> Tensor:
        """What goes backward."""
        return loss * self.state[0]

    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divides the gradients, in place."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_mul_(gradients, 1 / self.state[0])  # pyright: ignore[reportPrivateImportUsage]

    def overflow(self, loss: Tensor, gradient_norm: Tensor) -> Tensor:
        """Whether the step is to be left out, a boolean scalar; updates the scale."""
        scale, steps = self.state
        over = loss.isfinite() & ~gradient_norm.isfinite() & (scale > LEAST)
        grow = ~over & (steps + 1 >= GROW_EVERY)
        factor = torch.where(over, 0.5, torch.where(grow, 2.0, 1.0))
        self.state = torch.stack([(scale * factor).clamp(LEAST, MOST), torch.where(over | grow, 0.0, steps + 1)])
        return over
