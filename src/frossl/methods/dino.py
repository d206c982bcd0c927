"""DINO (arXiv 2104.14294): self-distillation from a moving average of the network, centred and sharpened."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from frossl.core.types import Loss, MethodSpec, StepContext
from frossl.losses.dino import dino
from frossl.methods.base import METHODS
from frossl.methods.momentum import MomentumMethod
from frossl.nn.mlp import mlp, output_width
from frossl.nn.prototypes import Prototypes


@METHODS.register("dino")
class DINO(MomentumMethod):
    """Predicts the sharpened output of a moving average of the network for another view."""

    embeds = "head.0"
    centre: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; see :func:`frossl.losses.dino`."""

        projector: str = "1024-gelu-1024-gelu-256"
        """head on the backbone's features: widths, bn, relu, gelu joined by '-' (paper: 2048-gelu-2048-gelu-256)"""
        prototypes: int = 4096
        """outputs, as cosines with learned directions (paper: 65536)"""
        student_temperature: float = 0.1
        """divides the student's scores"""
        teacher_temperature: float = 0.04
        """divides the teacher's scores after the warm-up (paper: 0.07)"""
        first_teacher_temperature: float = 0.04
        """the same at the start"""
        teacher_warmup: float = 0.0
        """epochs of linear warm-up between the two (paper: 30)"""
        centre_momentum: float = 0.9
        """weight of the old centre in the new one"""
        freeze_prototypes: float = 1.0
        """epochs at the start in which the last layer stays as it is"""
        momentum: float = 0.99
        """weight of the old value in the averaged network, at the start (paper: 0.996)"""
        final_momentum: float = 1.0
        """the same at the end, along half a cosine"""

    def __init__(self, config: Config, spec: MethodSpec) -> None:
        width = output_width(spec.features, config.projector)
        head = nn.Sequential(mlp(spec.features, config.projector), Prototypes(width, config.prototypes))
        super().__init__(config, spec, head)
        self.register_buffer("centre", torch.zeros(config.prototypes))

    def scheduled(self, progress: float, epoch: float) -> dict[str, float]:
        return {**super().scheduled(progress, epoch), "teacher_temperature": self.teacher_temperature(epoch)}

    def teacher_temperature(self, epoch: float) -> float:
        c = self.config
        warm = min(epoch / c.teacher_warmup, 1.0) if c.teacher_warmup else 1.0
        return c.first_teacher_temperature + warm * (c.teacher_temperature - c.first_teacher_temperature)

    def forward(self, h_VNF: Tensor, context: StepContext) -> Loss:
        c = self.config
        projector, prototypes = self.head.children()
        student_VNK = prototypes(self.project(projector, h_VNF), frozen=context.epoch < c.freeze_prototypes)
        return dino(
            student_VNK,
            self.target(context),
            self.centre,
            student_temperature=c.student_temperature,
            teacher_temperature=self.teacher_temperature(context.epoch),
            centre_momentum=c.centre_momentum,
        )
