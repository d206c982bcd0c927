"""EMP-SSL (arXiv 2304.03977): a projector and the total coding rate, for many small crops of each image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frossl.core.types import Loss, Moment, Setting
from frossl.losses.empssl import empssl
from frossl.methods.base import METHODS, Method
from frossl.nn.mlp import mlp


@METHODS.register("empssl")
class EMPSSL(Method):
    """Pulls many crops of an image to their mean while the coding rate of each is high."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; see :func:`frossl.losses.empssl`."""

        projector: str = "1024-bn-relu-512"
        """head on the backbone's features: widths, bn, relu joined by '-' (public code: 4096-bn-relu-512)"""
        invariance_weight: float = 200.0
        """weight of the cosine with the mean"""
        coding_rate_weight: float = 1.0
        """weight of the coding rate"""
        distortion: float = 0.2
        """how coarsely the coding rate counts"""

    def __init__(self, config: Config, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.projector = mlp(setting.features, config.projector)

    def forward(self, h_VNF: Tensor, moment: Moment) -> Loss:
        c = self.config
        return empssl(
            self.project(self.projector, h_VNF),
            invariance_weight=c.invariance_weight,
            coding_rate_weight=c.coding_rate_weight,
            distortion=c.distortion,
        )
