"""Methods of the record that are not part of the library: ``--method record_methods:NAME``."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from frossl.core.types import Loss, StepContext
from frossl.losses import frossl
from frossl.methods import METHODS
from frossl.methods.projector import LossMethod

FROSSL = METHODS["frossl"]


class SpreadFirst(LossMethod):
    """FroSSL whose weight of invariance goes from ``first`` to ``last`` times its default 4 N / D."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config:
        projector: str = FROSSL.Config.projector
        """head on the backbone's features"""
        first: float = 0.25
        """factor of the weight at the start of the run"""
        last: float = 2.0
        """factor of the weight at its end"""

    def scheduled(self, progress: float, epoch: float) -> dict[str, float]:
        return {"weight_factor": self.config.first + (self.config.last - self.config.first) * progress}

    def forward(self, h_VNF: Tensor, context: StepContext) -> Loss:
        z_VND = self.project(self.projector, h_VNF)
        factor = self.scheduled(context.progress, context.epoch)["weight_factor"]
        return frossl(z_VND, invariance_weight=factor * 4 * z_VND.shape[1] / z_VND.shape[2])
