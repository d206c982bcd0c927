"""The untrained arm: a backbone with random weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frossl.core.types import Loss, MethodSpec, StepContext
from frossl.methods.base import METHODS, Method


@METHODS.register("random")
class Random(Method):
    """Learns nothing: the backbone keeps its random weights, as a control."""

    trains = False

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """No options."""

    def __init__(self, config: Config, spec: MethodSpec) -> None:
        super().__init__(spec)
        self.config = config

    def forward(self, h_VNF: Tensor, context: StepContext) -> Loss:
        """Zero, with a gradient of zero, whatever the features are."""
        return Loss(h_VNF[:0].float().sum(), {})
