"""DCL (arXiv 2110.06848): SimCLR without the positives in the denominator."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frossl.core.types import Loss, Moment, Setting
from frossl.losses.dcl import dcl
from frossl.methods.base import METHODS, Method
from frossl.nn.mlp import mlp


@METHODS.register("dcl")
class DCL(Method):
    """SimCLR with attraction and repulsion decoupled, which does with smaller batches."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; see :func:`frossl.losses.dcl`."""

        projector: str = "1024-relu-128"
        """head on the backbone's features: widths, bn, relu joined by '-' (paper: 2048-relu-128)"""
        temperature: float = 0.1
        """divides the cosines"""

    def __init__(self, config: Config, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.projector = mlp(setting.features, config.projector)

    def forward(self, h_VNF: Tensor, moment: Moment) -> Loss:
        return dcl(self.project(self.projector, h_VNF), temperature=self.config.temperature)
