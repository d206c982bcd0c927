"""What every method keeps to."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from frossl.core.axes import over_views
from frossl.core.registry import Registry
from frossl.core.types import Loss, MethodSpec, StepContext, UserError

METHODS: Registry[Any] = Registry("method")


class Method(nn.Module):
    """Heads, targets and objective; knows nothing of the training loop, and all its state is in its ``state_dict``.

    A method has a nested frozen dataclass ``Config``, is built as ``Method(config, spec)`` and called as
    ``method(h_VNF, context) -> Loss``. A call changes nothing: new state (queues, centres, running statistics) is in
    ``Loss.state`` under the names of its buffers, for :meth:`commit` after a good step.
    """

    uses_labels: ClassVar[bool] = False
    """a supervised arm: cannot train without labels"""
    float64: ClassVar[bool] = False
    """the objective computes in float64, which MPS has not"""
    eigenvalues: ClassVar[bool] = False
    """the objective takes eigenvalues, for which each step waits for an accelerator"""
    trains: ClassVar[bool] = True
    """whether there is anything to learn; the untrained arm has nothing"""
    constant_lr: ClassVar[tuple[str, ...]] = ()
    """names of sub-modules that keep the peak learning rate while that of the others follows the schedule"""
    ema_pairs: ClassVar[dict[str, str]] = {}
    """names of sub-modules that follow others as moving averages: target -> online"""
    embeds: ClassVar[str] = "projector"
    """name of the sub-module whose outputs the objective and the telemetry see"""

    def __init__(self, spec: MethodSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, h_VNF: Tensor, context: StepContext) -> Loss:
        """Loss of backbone features ``(V, N, F)`` of all views, those of the largest resolution first."""
        raise NotImplementedError

    def momentum(self, progress: float) -> float | None:
        """Weight of the old value in averaged networks at ``progress`` (0 to 1) of the run; None without such networks.

        A method that gives a number gets ``context.target_VNF``.
        """
        return None

    def scheduled(self, progress: float, epoch: float) -> dict[str, float]:
        """Values that follow a schedule, by name, at ``progress`` of the run and ``epoch``; for the log."""
        momentum = self.momentum(progress)
        return {} if momentum is None else {"momentum": momentum}

    def project(self, head: nn.Module, h_VNF: Tensor) -> Tensor:
        """``head`` on every view, ``(V, N, F)`` to ``(V, N, D)``."""
        return over_views(head, h_VNF, self.spec.joint)

    @torch.no_grad()
    def embed(self, h_VNF: Tensor) -> Tensor | None:
        """Embeddings ``(V, N, D)`` by the sub-module :attr:`embeds`, changing nothing; None where there is none.

        Batch norms do as their mode says, but running statistics stay.
        """
        head = dict(self.named_modules()).get(self.embeds)
        if head is None:
            return None
        kept = {name: buffer.clone() for name, buffer in head.named_buffers()}
        dtype = next((p.dtype for p in head.parameters()), h_VNF.dtype)
        return over_views(lambda x: functional_call(head, kept, (x,)), h_VNF.to(dtype), self.spec.joint)

    @torch.no_grad()
    def commit(self, loss: Loss, good: Tensor | None = None) -> None:
        """Lets ``loss.state`` take effect, unless ``good``, a scalar on the device, is 0."""
        buffers = dict(self.named_buffers())
        for name, value in loss.state.items():
            buffers[name].copy_(value if good is None else torch.where(good.bool(), value, buffers[name]))


def require(value: Tensor | None, name: str) -> Tensor:
    """``value``, the field ``name`` of a :class:`StepContext`.

    Raises:
        UserError: it is None.
    """
    if value is None:
        raise UserError(f"this method needs {name} at every step, and got a StepContext without it")
    return value
