"""I-VNE+ (arXiv 2304.01434): a projector, the cosine of views and the von Neumann entropy of each."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frossl.core.types import Loss, Moment, Setting
from frossl.losses.ivne import ivne
from frossl.methods.base import METHODS, Method
from frossl.nn.mlp import mlp


@METHODS.register("ivne")
class IVNE(Method):
    """Pulls views together while the entropy of each view's spectrum is high."""

    float64 = True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; see :func:`frossl.losses.ivne`."""

        projector: str = "1024-bn-relu-1024-bn-relu-1024"
        """head on the backbone's features: widths, bn, relu joined by '-' (STL-10: 2048-bn-relu-2048-bn-relu-1024)"""
        entropy_weight: float = 1.0
        """weight of the von Neumann entropy"""
        similarity_weight: float = 4.16
        """weight of the cosine of views"""

    def __init__(self, config: Config, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.projector = mlp(setting.features, config.projector)

    def forward(self, h_VNF: Tensor, moment: Moment) -> Loss:
        z_VND = self.project(self.projector, h_VNF)
        c = self.config
        return ivne(z_VND, entropy_weight=c.entropy_weight, similarity_weight=c.similarity_weight)
