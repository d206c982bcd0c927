"""Moving averages of networks: the targets of MoCo, BYOL and DINO."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy that no optimiser sees."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def ema_update(target: nn.Module, online: nn.Module, momentum: float, good: Tensor | None = None) -> None:
    """``target <- momentum target + (1 - momentum) online`` for all parameters, unless ``good``, a scalar, is 0.

    Batch-norm statistics are left alone: the target sees the same images and has its own.
    """
    averages, values = list(target.parameters()), list(online.parameters())
    weight = torch.full((), 1 - momentum, device=averages[0].device) if good is None else good * (1 - momentum)
    lerp_all(averages, values, weight)


def lerp_all(xs: Sequence[Tensor], ends: Sequence[Tensor], weight: Tensor) -> None:
    """``x <- x + weight (end - x)`` for all of them, in place; ``weight`` is a scalar on their device.

    Three kernels off the CPU. There torch's lerp is as fast, and rounds once.
    """
    if not xs:
        return
    if weight.device.type == "cpu":
        for x, end in zip(xs, ends, strict=True):
            x.lerp_(end.to(x.dtype), weight.to(x.dtype))
        return
    steps = torch._foreach_sub(list(ends), list(xs))  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_mul_(steps, weight)  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_add_(list(xs), steps)  # pyright: ignore[reportPrivateImportUsage]


def cosine(progress: float, start: float, end: float) -> float:
    """From ``start`` to ``end`` along half a cosine while ``progress`` goes from 0 to 1 (BYOL, arXiv 2006.07733)."""
    return end - (end - start) * (math.cos(math.pi * min(progress, 1.0)) + 1) / 2
