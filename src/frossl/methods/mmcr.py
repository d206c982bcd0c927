"""MMCR (arXiv 2303.03307): a projector and the nuclear norm of the images' mean embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frossl.core.types import Loss, Moment, Setting
from frossl.losses.mmcr import mmcr
from frossl.methods.base import METHODS, Method
from frossl.nn.mlp import mlp


@METHODS.register("mmcr")
class MMCR(Method):
    """Spreads the images' mean embeddings, which are long only where an image's views agree."""

    float64 = True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; see :func:`frossl.losses.mmcr`."""

        projector: str = "1024-bn-relu-1024-bn-relu-512"
        """head on the backbone's features: widths, bn, relu joined by '-' (STL-10: 2048-bn-relu-2048-bn-relu-512)"""

    def __init__(self, config: Config, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.projector = mlp(setting.features, config.projector)

    def forward(self, h_VNF: Tensor, moment: Moment) -> Loss:
        return mmcr(self.project(self.projector, h_VNF))
