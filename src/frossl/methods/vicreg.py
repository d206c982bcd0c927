"""VICReg (arXiv 2105.04906): a projector and the variance-invariance-covariance objective."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frossl.core.types import Loss, Moment, Setting
from frossl.losses.vicreg import vicreg
from frossl.methods.base import METHODS, Method
from frossl.nn.mlp import mlp


@METHODS.register("vicreg")
class VICReg(Method):
    """Pulls views together while every column of their projections varies and no two covary."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; see :func:`frossl.losses.vicreg`."""

        projector: str = "1024-bn-relu-1024-bn-relu-1024"
        """head on the backbone's features: widths, bn, relu joined by '-' (paper: 8192-bn-relu-8192-bn-relu-8192)"""
        invariance_weight: float = 25.0
        """weight of the squared distance of views"""
        variance_weight: float = 25.0
        """weight of the standard deviations below 1 (25 in the paper's code is 12.5 here)"""
        covariance_weight: float = 1.0
        """weight of the squared covariances"""

    def __init__(self, config: Config, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.projector = mlp(setting.features, config.projector)

    def forward(self, h_VNF: Tensor, moment: Moment) -> Loss:
        c = self.config
        return vicreg(
            self.project(self.projector, h_VNF),
            invariance_weight=c.invariance_weight,
            variance_weight=c.variance_weight,
            covariance_weight=c.covariance_weight,
        )
