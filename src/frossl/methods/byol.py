"""BYOL (arXiv 2006.07733): a projector, a predictor and a moving average of the network as the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from frossl.core.types import Loss, Moment, Setting
from frossl.losses.byol import byol
from frossl.methods.base import METHODS, Method, needed
from frossl.nn.ema import cosine, frozen_copy
from frossl.nn.mlp import mlp, output_width


@METHODS.register("byol")
class BYOL(Method):
    """Predicts what a moving average of the network makes of another view; no negatives."""

    averaged: ClassVar = {"target_head": "head"}
    embeds = "head"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options of heads and targets."""

        projector: str = "1024-bn-relu-256"
        """head on the backbone's features: widths, bn, relu joined by '-' (paper: 4096-bn-relu-256)"""
        predictor_width: int = 1024
        """hidden width of the predictor (paper: 4096)"""
        momentum: float = 0.99
        """share of its old self that the averaged network keeps at a step, at the start (paper: 0.996)"""
        final_momentum: float = 1.0
        """the same at the end, along half a cosine"""

    def __init__(self, config: Config, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.head = mlp(setting.features, config.projector)
        self.target_head = frozen_copy(self.head)
        width = output_width(setting.features, config.projector)
        self.predictor = mlp(width, f"{config.predictor_width}-bn-relu-{width}")

    def momentum(self, share: float) -> float:
        return cosine(share, self.config.momentum, self.config.final_momentum)

    def forward(self, h_VNF: Tensor, moment: Moment) -> Loss:
        target_GNF = needed(moment.target_VNF, "target_VNF")
        prediction_VND = self.project(self.predictor, self.project(self.head, h_VNF))
        with torch.no_grad():
            target_GND = self.project(self.target_head, target_GNF)
        return byol(prediction_VND, target_GND)
