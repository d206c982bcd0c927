"""CorInfoMax (arXiv 2209.07999): a projector and the log-determinant of its running covariance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from frossl.core.types import Loss, MethodSpec, StepContext
from frossl.losses.corinfomax import corinfomax
from frossl.methods.base import METHODS
from frossl.methods.projector import ProjectorMethod


@METHODS.register("corinfomax")
class CorInfoMax(ProjectorMethod):
    """Pulls views together while the volume that their projections fill is large."""

    float64 = True

    mean: Tensor
    covariance: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; see :func:`frossl.losses.corinfomax`."""

        projector: str = "1024-bn-relu-1024-bn-relu-256"
        """head on the backbone's features: widths, bn, relu joined by '-' (STL-10: 4096-bn-relu-4096-bn-relu-256)"""
        invariance_weight: float = 500.0
        """weight of the squared distance of views (published: 250 to 1000)"""
        forgetting: float = 0.01
        """weight of the running mean and covariance against those of the batch"""
        initial_covariance: float = 1.0
        """the running covariance starts as the identity times this"""
        epsilon: float = 1e-6
        """added to the covariance's diagonal"""

    def __init__(self, config: Config, spec: MethodSpec) -> None:
        super().__init__(config, spec)
        start = config.initial_covariance * torch.eye(self.width, dtype=torch.float64)
        self.register_buffer("mean", torch.zeros(spec.views, self.width, dtype=torch.float64))
        self.register_buffer("covariance", start.repeat(spec.views, 1, 1))

    def forward(self, h_VNF: Tensor, context: StepContext) -> Loss:
        c = self.config
        options = {"forgetting": c.forgetting, "epsilon": c.epsilon, "invariance_weight": c.invariance_weight}
        return corinfomax(self.project(self.projector, h_VNF), self.mean, self.covariance, **options)
