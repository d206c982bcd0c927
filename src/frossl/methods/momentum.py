"""What MoCo, BYOL and DINO share: targets by a moving average of the network."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from frossl.core.types import Moment, Setting
from frossl.methods.base import Method, needed
from frossl.nn.ema import cosine, frozen_copy


class MomentumMethod(Method):
    """Its ``head`` is followed by ``target_head``; its ``Config`` has ``momentum`` and ``final_momentum``."""

    averaged: ClassVar = {"target_head": "head"}
    embeds = "head"

    def __init__(self, config: Any, setting: Setting, head: nn.Module) -> None:
        super().__init__(setting)
        self.config = config
        self.head = head
        self.target_head = frozen_copy(head)

    def momentum(self, share: float) -> float:
        return cosine(share, self.config.momentum, self.config.final_momentum)

    @torch.no_grad()
    def target(self, moment: Moment) -> Tensor:
        """Output ``(G, N, D)`` of the averaged network for the large views."""
        return self.project(self.target_head, needed(moment.target_VNF, "target_VNF"))
