"""FroSSL (arXiv 2310.02903): a projector and the multiview log-Frobenius objective."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frossl.core.distributed import global_count
from frossl.core.types import Loss, Moment, Setting
from frossl.losses.frossl import Kernel, Normalise, ViewScaling, frossl
from frossl.methods.base import METHODS, Method
from frossl.nn.mlp import mlp


@METHODS.register("frossl")
class FroSSL(Method):
    """Projects every view and compares it with the mean view while keeping each view's spectrum flat."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options of the objective; see :func:`frossl.losses.frossl`."""

        projector: str = "1024-bn-relu-1024"
        """head on the backbone's features: widths, bn, relu joined by '-' (paper: 2048-bn-relu-2048-bn-relu-1024)"""
        invariance_weight: float | None = None
        """weight w of the distance to the mean view; 4 N / D if not given (paper: 1.4 for two views, scaling pairs)"""
        view_scaling: ViewScaling = "unbiased"
        """how w scales with the number of views V: unbiased V/(V-1), pairs V, mean 1"""
        centre: bool = True
        """subtract each view's mean over the batch first; --no-centre is the reference's multiview form"""
        normalise: Normalise = "batch"
        """divide columns by their norm over the batch, or each sample by its own norm"""
        log: bool = True
        """take the logarithm of the Frobenius norm; --no-log is the ablation"""
        kernel: Kernel = "linear"
        """kernel of the Gram matrix; gaussian is the ablation"""

    def __init__(self, config: Config, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.projector = mlp(setting.features, config.projector)

    def forward(self, h_VNF: Tensor, moment: Moment) -> Loss:
        c = self.config
        z_VND = self.project(self.projector, h_VNF)
        # The term grows as D / N, so a fixed weight would mean something else for every batch and head.
        images = global_count(h_VNF.shape[1], h_VNF)
        weight = 4 * images / z_VND.shape[2] if c.invariance_weight is None else c.invariance_weight
        return frossl(
            z_VND,
            invariance_weight=weight,
            view_scaling=c.view_scaling,
            centre=c.centre,
            normalise=c.normalise,
            log=c.log,
            kernel=c.kernel,
        )
