"""EMP-FroSSL: the many small crops and the head of EMP-SSL (arXiv 2304.03977), the objective of FroSSL (2310.02903)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frossl.core.linalg import unit_rows
from frossl.core.types import Loss, Moment, Setting
from frossl.losses.base import widened
from frossl.losses.frossl import ViewScaling, frossl
from frossl.methods.base import METHODS, Method
from frossl.nn.mlp import mlp


@METHODS.register("emp_frossl")
class EMPFroSSL(Method):
    """FroSSL for many small crops of each image: samples are scaled to unit length before its objective.

    The public reference scales invariance by "pairs", which with 20 to 200 crops outweighs the entropy 19 to 199 times
    as much as with two views; the default here keeps the balance of two views, and "pairs" warns.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; see :func:`frossl.losses.frossl`."""

        projector: str = "1024-bn-relu-512"
        """head on the backbone's features: widths, bn, relu joined by '-' (public code: 4096-bn-relu-512)"""
        invariance_weight: float = 1.0
        """weight w of the distance to the mean view"""
        view_scaling: ViewScaling = "unbiased"
        """how w scales with the number of views V: unbiased V/(V-1), pairs V (public code), mean 1"""
        centre: bool = True
        """subtract each view's mean over the batch first; --no-centre is the public code"""

    def __init__(self, config: Config, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.projector = mlp(setting.features, config.projector)

    def forward(self, h_VNF: Tensor, moment: Moment) -> Loss:
        c = self.config
        z_VND = unit_rows(widened(self.project(self.projector, h_VNF)))
        return frossl(z_VND, invariance_weight=c.invariance_weight, view_scaling=c.view_scaling, centre=c.centre)
