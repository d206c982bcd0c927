"""LeJEPA (arXiv 2511.08544): a projector and the sketched isotropic Gaussian regularisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from frossl.core.distributed import broadcast
from frossl.core.types import Loss, Moment, Setting
from frossl.losses.sigreg import sigreg
from frossl.methods.base import METHODS, Method
from frossl.nn.mlp import mlp


@METHODS.register("lejepa")
class LeJEPA(Method):
    """Pulls views to the mean of the large ones while their distribution is a standard normal."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; see :func:`frossl.losses.sigreg`."""

        projector: str = "1024-bn-relu-1024-bn-relu-64"
        """head on the backbone's features: widths, bn, relu joined by '-' (authors: 2048-bn-relu-2048-bn-relu-16)"""
        weight: float = 0.02
        """weight of the distance from a standard normal; that of the prediction is 1 minus this"""
        directions: int = 256
        """random directions, drawn at each step, along which the distribution is tested"""

    def __init__(self, config: Config, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.projector = mlp(setting.features, config.projector)

    def forward(self, h_VNF: Tensor, moment: Moment) -> Loss:
        z_VND = self.project(self.projector, h_VNF)
        directions = broadcast(torch.randn(z_VND.shape[2], self.config.directions).to(h_VNF.device))
        return sigreg(z_VND, directions, weight=self.config.weight, large=self.setting.large_views)
