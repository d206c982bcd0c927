"""MoCo v2+ (arXiv 1911.05722, 2003.04297): momentum contrast with queues, in both directions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from frossl.core.linalg import unit_rows
from frossl.core.types import Loss, MethodSpec, StepContext
from frossl.losses.moco import moco
from frossl.methods.base import METHODS
from frossl.methods.momentum import MomentumMethod
from frossl.nn.mlp import mlp, output_width


@METHODS.register("mocov2plus")
class MoCoV2Plus(MomentumMethod):
    """Tells another view of an image, encoded by a moving average, from a queue of earlier images.

    Batches are not shuffled over devices for the averaged network's batch norms, as they are in the papers.
    """

    queue: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; see :func:`frossl.losses.moco`."""

        projector: str = "1024-relu-256"
        """head on the backbone's features: widths, bn, relu joined by '-' (MoCo v2: 2048-relu-128)"""
        temperature: float = 0.2
        """divides the cosines"""
        queue: int = 4096
        """earlier images that each large view is contrasted with (paper: 65536)"""
        momentum: float = 0.99
        """weight of the old value in the averaged network, at the start (paper: 0.999 throughout)"""
        final_momentum: float = 0.999
        """the same at the end, along half a cosine"""

    def __init__(self, config: Config, spec: MethodSpec) -> None:
        super().__init__(config, spec, mlp(spec.features, config.projector))
        width = output_width(spec.features, config.projector)
        self.register_buffer("queue", unit_rows(torch.randn(spec.large_views, config.queue, width)))

    def forward(self, h_VNF: Tensor, context: StepContext) -> Loss:
        query_VND = self.project(self.head, h_VNF)
        return moco(query_VND, self.target(context), self.queue, temperature=self.config.temperature)
