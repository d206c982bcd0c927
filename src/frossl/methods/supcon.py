"""SupCon (arXiv 2004.11362): SimCLR whose positives are all images of the same class."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frossl.core.types import Loss, Moment, Setting
from frossl.losses.supcon import supcon
from frossl.methods.base import METHODS, Method, needed
from frossl.nn.mlp import mlp


@METHODS.register("supcon")
class SupCon(Method):
    """Supervised contrastive learning: with labels, draws the images of a class together."""

    uses_labels = True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; see :func:`frossl.losses.supcon`."""

        projector: str = "1024-relu-128"
        """head on the backbone's features: widths, bn, relu joined by '-' (paper: 2048-relu-128)"""
        temperature: float = 0.1
        """divides the cosines"""

    def __init__(self, config: Config, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.projector = mlp(setting.features, config.projector)

    def forward(self, h_VNF: Tensor, moment: Moment) -> Loss:
        labels_N = needed(moment.labels_N, "labels_N")
        return supcon(self.project(self.projector, h_VNF), labels_N, temperature=self.config.temperature)
