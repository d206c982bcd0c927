"""SwAV (arXiv 2006.09882): a projector, prototypes and balanced assignments of views to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from frossl.core.distributed import gather
from frossl.core.linalg import unit_rows
from frossl.core.types import Loss, MethodSpec, StepContext
from frossl.losses.base import upcast
from frossl.losses.swav import sinkhorn, swav
from frossl.methods.base import METHODS
from frossl.methods.projector import ProjectorMethod
from frossl.nn.prototypes import Prototypes


@METHODS.register("swav")
class SwAV(ProjectorMethod):
    """Predicts the prototypes to which another view of the image was assigned; all prototypes are used equally."""

    queue: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; see :func:`frossl.losses.swav` and :func:`frossl.losses.swav.sinkhorn`."""

        projector: str = "1024-bn-relu-128"
        """head on the backbone's features: widths, bn, relu joined by '-' (paper: 2048-bn-relu-128)"""
        prototypes: int = 512
        """number of prototypes (paper: 3000)"""
        temperature: float = 0.1
        """divides the cosines with the prototypes"""
        epsilon: float = 0.05
        """sharpness of the assignments: smaller is sharper"""
        iterations: int = 3
        """iterations of Sinkhorn's algorithm"""
        freeze_prototypes: float = 1.0
        """epochs at the start in which the prototypes stay as they are"""
        queue: int = 0
        """earlier images per large view that take part in the assignment, for small batches (paper: 3840)"""
        queue_from: float = 15.0
        """epochs before the queue is used, so that it holds embeddings that no longer change much"""

    def __init__(self, config: Config, spec: MethodSpec) -> None:
        super().__init__(config, spec)
        self.prototypes = Prototypes(self.width, config.prototypes)
        self.register_buffer("queue", unit_rows(torch.randn(spec.large_views, config.queue, self.width)))

    def forward(self, h_VNF: Tensor, context: StepContext) -> Loss:
        c = self.config
        z_VND = self.project(self.projector, h_VNF)
        scores_VNK = self.prototypes(z_VND, frozen=context.epoch < c.freeze_prototypes)
        large = slice(self.spec.large_views)
        with torch.no_grad():
            earlier_GQK = self.prototypes(self.queue) if c.queue and context.epoch >= c.queue_from else None
            assignments_GNK = sinkhorn(scores_VNK[large], earlier_GQK, epsilon=c.epsilon, iterations=c.iterations)
            newest_GND = gather(unit_rows(upcast(z_VND[large])), dim=1) if c.queue else self.queue
            queue_GQD = torch.cat([newest_GND, self.queue], dim=1)[:, : c.queue]
        return swav(scores_VNK, assignments_GNK, temperature=c.temperature)._replace(state={"queue": queue_GQD})
