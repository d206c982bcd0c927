"""Barlow Twins (arXiv 2103.03230): a projector and the cross-correlation objective."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frossl.core.types import Loss, Moment, Setting
from frossl.losses.barlow_twins import barlow_twins
from frossl.methods.base import METHODS, Method
from frossl.nn.mlp import mlp


@METHODS.register("barlow")
class BarlowTwins(Method):
    """Makes the cross-correlation of two views' projections the identity."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; see :func:`frossl.losses.barlow_twins`."""

        projector: str = "1024-bn-relu-1024-bn-relu-1024"
        """head on the backbone's features: widths, bn, relu joined by '-' (paper: 8192-bn-relu-8192-bn-relu-8192)"""
        off_diagonal_weight: float = 5e-3
        """weight of the correlations of different columns"""
        scale: float = 0.1
        """factor on the loss (paper's code: 0.024); matters where the optimiser does not normalise gradients"""

    def __init__(self, config: Config, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.projector = mlp(setting.features, config.projector)

    def forward(self, h_VNF: Tensor, moment: Moment) -> Loss:
        z_VND = self.project(self.projector, h_VNF)
        return barlow_twins(z_VND, off_diagonal_weight=self.config.off_diagonal_weight, scale=self.config.scale)
