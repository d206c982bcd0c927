"""Methods with one projector on the backbone's features, and a loss as such a method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from frossl.core.types import Loss, MethodSpec, StepContext
from frossl.losses.base import make_loss
from frossl.methods.base import Method, require
from frossl.nn.mlp import mlp, output_width


class ProjectorMethod(Method):
    """Has a ``projector``, which its ``Config`` describes, with outputs of :attr:`width`."""

    Config: ClassVar[type[Any]]

    def __init__(self, config: Any, spec: MethodSpec) -> None:
        super().__init__(spec)
        self.config = config
        self.projector = mlp(spec.features, config.projector)
        self.width = output_width(spec.features, config.projector)


class LossMethod(ProjectorMethod):
    """What :func:`~frossl.methods.of_loss.loss_method` makes: a projector and :attr:`loss`."""

    loss: ClassVar[Callable[..., Loss | Tensor]]
    filled_in: ClassVar[set[str]]
    """arguments of the loss that are no options but come from the batch and the views: ``labels``, ``large``"""

    def forward(self, h_VNF: Tensor, context: StepContext) -> Loss:
        arguments = {name: value for name, value in vars(self.config).items() if name != "projector"}
        if "labels" in self.filled_in:
            arguments["labels"] = require(context.labels_N, "labels_N")
        if "large" in self.filled_in:
            arguments["large"] = self.spec.large_views
        loss = type(self).loss(self.project(self.projector, h_VNF), **arguments)
        return make_loss(loss=loss) if isinstance(loss, Tensor) else loss
