"""Moving averages of networks: the targets of MoCo, BYOL and DINO."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy that no optimiser sees."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(target: nn.Module, online: nn.Module, keep: float, good: Tensor | None = None) -> None:
    """``target <- keep target + (1 - keep) online`` for all parameters, unless ``good``, on their device, is 0.

    Batch-norm statistics are left alone: the target sees the same images and has its own.
    """
    for average, value in zip(target.parameters(), online.parameters(), strict=True):
        share = 1 - keep if good is None else good.to(average.dtype) * (1 - keep)
        average.lerp_(value.to(average.dtype), share)


def cosine(share: float, start: float, end: float) -> float:
    """From ``start`` to ``end`` along half a cosine while ``share`` goes from 0 to 1 (BYOL, arXiv 2006.07733)."""
    return end - (end - start) * (math.cos(math.pi * min(share, 1.0)) + 1) / 2
