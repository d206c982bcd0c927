"""FroSSL (arXiv 2310.02903): a projector and the multiview log-Frobenius objective."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from frossl.core.axes import fold, unfold
from frossl.core.dist import world_size
from frossl.core.types import Loss
from frossl.losses.frossl import Kernel, Normalise, ViewScaling, frossl
from frossl.methods import METHODS
from frossl.nn.mlp import mlp


@METHODS.register("frossl")
class FroSSL(nn.Module):
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

    def __init__(self, config: Config, features: int) -> None:
        super().__init__()
        self.config = config
        self.projector = mlp(features, config.projector)

    def forward(self, h_VNF: Tensor) -> Loss:
        """Loss of backbone features ``(V, N, F)``."""
        c = self.config
        z_VND = unfold(self.projector(fold(h_VNF)), h_VNF.shape[0])
        # The term grows as D / N, so a fixed weight would mean something else for every batch and head.
        images = h_VNF.shape[1] * world_size()
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
