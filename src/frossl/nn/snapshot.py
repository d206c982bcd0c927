"""Values of many small tensors, such as the statistics of batch norms, kept and put back by a few kernels."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Snapshot:
    """The values that ``tensors`` had at the last :meth:`save`."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.groups: dict[torch.dtype, list[Tensor]] = {}
        for x in tensors:
            self.groups.setdefault(x.dtype, []).append(x)
        self.save()

    def save(self) -> None:
        self.values = {dtype: _joined(group) for dtype, group in self.groups.items()}

    @torch.no_grad()
    def restore(self, good: Tensor | None = None) -> None:
        """Puts the values back, unless ``good``, a scalar on their device, is 1."""
        for dtype, group in self.groups.items():
            value = self.values[dtype]
            value = value if good is None else torch.where(good.bool(), _joined(group), value)
            parts = value.split([x.numel() for x in group])
            shaped = [part.view(x.shape) for part, x in zip(parts, group, strict=True)]
            torch._foreach_copy_(group, shaped)  # pyright: ignore[reportPrivateImportUsage]


def _joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat([x.detach().flatten() for x in tensors])
