"""W-MSE (arXiv 2007.06346): a projector, whitening of sub-batches and the cosine of views."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from frossl.core.distributed import broadcast, global_count
from frossl.core.types import Loss, Moment, Setting
from frossl.losses.wmse import wmse
from frossl.methods.base import METHODS, Method
from frossl.nn.mlp import mlp


@METHODS.register("wmse")
class WMSE(Method):
    """Pulls views together after whitening them, so that they cannot collapse."""

    float64 = True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; see :func:`frossl.losses.wmse`."""

        projector: str = "1024-bn-relu-64"
        """head on the backbone's features: widths, bn, relu joined by '-'; narrower than a batch has images"""
        size: int | None = None
        """images whitened together; twice the projection's width, at most the batch, if not given"""
        iterations: int = 4
        """how many times a step cuts its batch into sub-batches, at random"""
        epsilon: float = 0.0
        """share of the identity in the covariance; above 0, fewer images than the projection is wide will do"""
        stop_gradient: bool = False
        """treat the later view of each pair as a constant, as the code published with FroSSL does"""

    def __init__(self, config: Config, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.projector = mlp(setting.features, config.projector)

    def forward(self, h_VNF: Tensor, moment: Moment) -> Loss:
        c = self.config
        z_VND = self.project(self.projector, h_VNF)
        images = global_count(h_VNF.shape[1], h_VNF)
        orders = torch.stack([torch.randperm(images) for _ in range(c.iterations)])
        return wmse(
            z_VND,
            size=min(2 * z_VND.shape[2], images) if c.size is None else c.size,
            permutations=broadcast(orders.to(h_VNF.device)),
            epsilon=c.epsilon,
            stop_gradient=c.stop_gradient,
        )
