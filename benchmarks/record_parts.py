"""Parts of the record that are not in the library: methods, ``--method record_parts:NAME``, and ways to begin."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from frossl.core.types import Loss, StepContext
from frossl.data.types import Dataset
from frossl.losses import frossl
from frossl.methods import METHODS
from frossl.methods.projector import LossMethod

FROSSL = METHODS["frossl"]


class SpreadFirst(LossMethod):
    """FroSSL whose weight of invariance goes from ``first`` to ``last`` times its default 4 N / D."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config:
        projector: str = FROSSL.Config.projector
        """head on the backbone's features"""
        first: float = 0.25
        """factor of the weight at the start of the run"""
        last: float = 2.0
        """factor of the weight at its end"""

    def scheduled(self, progress: float, epoch: float) -> dict[str, float]:
        return {"weight_factor": self.config.first + (self.config.last - self.config.first) * progress}

    def forward(self, h_VNF: Tensor, context: StepContext) -> Loss:
        z_VND = self.project(self.projector, h_VNF)
        factor = self.scheduled(context.progress, context.epoch)["weight_factor"]
        return frossl(z_VND, invariance_weight=factor * 4 * z_VND.shape[1] / z_VND.shape[2])


def branches_at_zero(encoder: nn.Module, data: Dataset) -> None:
    """Lets every residual block begin as its shortcut alone."""
    for block in encoder.modules():
        last = getattr(block, "bn2", None)
        if isinstance(last, nn.BatchNorm2d):
            nn.init.zeros_(last.weight)


def whitened(encoder: nn.Module, data: Dataset, images: int = 5000, floor: float = 1e-2) -> None:
    """Lets the first convolution whiten the patches that it sees, those of the first ``images``."""
    assert isinstance(data.train.images, Tensor)
    conv = encoder.get_submodule("conv1")
    assert isinstance(conv, nn.Conv2d)
    mean, std = (torch.tensor(t)[:, None, None] for t in (data.mean, data.std))
    x_NCHW = (data.train.images[:images].float() / 255 - mean) / std
    patches_ND = unfold(x_NCHW, conv.kernel_size, stride=4).transpose(1, 2).flatten(0, 1)
    values, vectors_DD = torch.linalg.eigh(torch.cov(patches_ND.T))
    filters_DD = (vectors_DD / (values + floor).sqrt()).T.flip(0)  # the strongest first
    filters = filters_DD[: conv.out_channels].reshape(-1, *conv.weight.shape[1:])
    scale = conv.weight.std() / filters.std()
    with torch.no_grad():
        conv.weight[: len(filters)] = filters * scale
