"""A projector on the backbone's features, and the loss of what it makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from frossl.core.types import Loss, Moment, Setting
from frossl.losses.base import sum_of
from frossl.methods.base import Method, needed
from frossl.nn.mlp import mlp


class ProjectorMethod(Method):
    """What :func:`~frossl.methods.of_loss.loss_method` makes: a projector and :attr:`loss`."""

    Config: ClassVar[type[Any]]
    loss: ClassVar[Callable[..., Loss | Tensor]]
    filled_in: ClassVar[set[str]]
    """arguments of the loss that are no options but come from the batch and the views: ``labels``, ``large``"""

    def __init__(self, config: Any, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.projector = mlp(setting.features, config.projector)

    def forward(self, h_VNF: Tensor, moment: Moment) -> Loss:
        arguments = {name: value for name, value in vars(self.config).items() if name != "projector"}
        if "labels" in self.filled_in:
            arguments["labels"] = needed(moment.labels_N, "labels_N")
        if "large" in self.filled_in:
            arguments["large"] = self.setting.large_views
        loss = type(self).loss(self.project(self.projector, h_VNF), **arguments)
        return sum_of(loss=loss) if isinstance(loss, Tensor) else loss
