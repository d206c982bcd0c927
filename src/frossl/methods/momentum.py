"""The base of MoCo, BYOL and DINO: targets by a moving average of the network."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from frossl.core.types import MethodSpec, StepContext
from frossl.methods.base import Method, require
from frossl.nn.ema import cosine, frozen_copy


class MomentumMethod(Method):
    """Its ``head`` is followed by ``target_head``; its ``Config`` has ``momentum`` and ``final_momentum``."""

    ema_pairs: ClassVar = {"target_head": "head"}
    embeds = "head"

    def __init__(self, config: Any, spec: MethodSpec, head: nn.Module) -> None:
        super().__init__(spec)
        self.config = config
        self.head = head
        self.target_head = frozen_copy(head)

    def momentum(self, progress: float) -> float:
        return cosine(progress, self.config.momentum, self.config.final_momentum)

    @torch.no_grad()
    def target(self, context: StepContext) -> Tensor:
        """Output ``(G, N, D)`` of the averaged network for the large views."""
        return self.project(self.target_head, require(context.target_VNF, "target_VNF"))
