"""SimSiam (arXiv 2011.10566): a projector, a predictor and a stopped gradient."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frossl.core.types import Loss, MethodSpec, StepContext
from frossl.losses.simsiam import simsiam
from frossl.methods.base import METHODS
from frossl.methods.projector import ProjectorMethod
from frossl.nn.mlp import mlp


@METHODS.register("simsiam")
class SimSiam(ProjectorMethod):
    """Predicts the projection of another view, which gets no gradient; no negatives, no moving average."""

    constant_lr = ("predictor",)

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options of the heads."""

        projector: str = "1024-bn-relu-1024-bn-relu-1024-standardise"
        """head on the backbone's features: widths, bn, relu, standardise joined by '-' (paper: widths of 2048)"""
        predictor_width: int = 256
        """hidden width of the predictor (paper: 512, a quarter of the projector's output)"""

    def __init__(self, config: Config, spec: MethodSpec) -> None:
        super().__init__(config, spec)
        self.predictor = mlp(self.width, f"{config.predictor_width}-bn-relu-{self.width}")

    def forward(self, h_VNF: Tensor, context: StepContext) -> Loss:
        z_VND = self.project(self.projector, h_VNF)
        return simsiam(self.project(self.predictor, z_VND), z_VND[: self.spec.large_views])
