"""Supervised training: a linear classifier on the features and cross entropy."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from frossl.core.types import Loss, MethodSpec, StepContext, UserError
from frossl.losses.cross_entropy import cross_entropy
from frossl.methods.base import METHODS, Method, require
from frossl.nn.mlp import mlp, output_width


@METHODS.register("supervised")
class Supervised(Method):
    """Cross entropy with labels: what the backbone learns from them on the same views."""

    uses_labels = True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; see :func:`frossl.losses.cross_entropy`."""

        projector: str = ""
        """layers between the backbone's features and the linear classifier: widths, bn, relu joined by '-' (none)"""

    def __init__(self, config: Config, spec: MethodSpec) -> None:
        super().__init__(spec)
        if spec.classes < 1:
            raise UserError("supervised training needs data with labels; these have no classes")
        self.config = config
        classifier = nn.Linear(output_width(spec.features, config.projector), spec.classes)
        self.head = mlp(spec.features, config.projector).append(classifier)

    def forward(self, h_VNF: Tensor, context: StepContext) -> Loss:
        return cross_entropy(self.project(self.head, h_VNF), require(context.labels_N, "labels_N"))
