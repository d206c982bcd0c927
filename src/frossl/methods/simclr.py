"""SimCLR (arXiv 2002.05709): a projector and the contrastive objective NT-Xent."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frossl.core.types import Loss, Moment, Setting
from frossl.losses.ntxent import ntxent
from frossl.methods.base import METHODS, Method
from frossl.nn.mlp import mlp


@METHODS.register("simclr")
class SimCLR(Method):
    """Tells the views of an image from the views of all other images of the batch."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; see :func:`frossl.losses.ntxent`."""

        projector: str = "1024-relu-128"
        """head on the backbone's features: widths, bn, relu joined by '-' (paper: 2048-relu-128)"""
        temperature: float = 0.1
        """divides the cosines (paper: 0.1 for ImageNet, 0.5 for CIFAR-10)"""

    def __init__(self, config: Config, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.projector = mlp(setting.features, config.projector)

    def forward(self, h_VNF: Tensor, moment: Moment) -> Loss:
        return ntxent(self.project(self.projector, h_VNF), temperature=self.config.temperature)
