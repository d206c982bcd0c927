"""BYOL (arXiv 2006.07733): a projector, a predictor and a moving average of the network as the target."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frossl.core.types import Loss, MethodSpec, StepContext
from frossl.losses.byol import byol
from frossl.methods.base import METHODS
from frossl.methods.momentum import MomentumMethod
from frossl.nn.mlp import mlp, output_width


@METHODS.register("byol")
class BYOL(MomentumMethod):
    """Predicts what a moving average of the network makes of another view; no negatives."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options of heads and targets."""

        projector: str = "1024-bn-relu-256"
        """head on the backbone's features: widths, bn, relu joined by '-' (paper: 4096-bn-relu-256)"""
        predictor_width: int = 1024
        """hidden width of the predictor (paper: 4096)"""
        momentum: float = 0.99
        """weight of the old value in the averaged network, at the start (paper: 0.996)"""
        final_momentum: float = 1.0
        """the same at the end, along half a cosine"""

    def __init__(self, config: Config, spec: MethodSpec) -> None:
        super().__init__(config, spec, mlp(spec.features, config.projector))
        width = output_width(spec.features, config.projector)
        self.predictor = mlp(width, f"{config.predictor_width}-bn-relu-{width}")

    def forward(self, h_VNF: Tensor, context: StepContext) -> Loss:
        return byol(self.project(self.predictor, self.project(self.head, h_VNF)), self.target(context))
