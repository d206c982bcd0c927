"""How far an accuracy may be off because the held-out images are a sample."""

from __future__ import annotations

import torch
from torch import Tensor


def bootstrap_interval(
    correct_N: Tensor, seed: int = 0, *, resamples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval ``(low, high)`` of the mean of one value per held-out image, as right or wrong.

    Images are drawn with replacement (Efron, Annals of Statistics 1979). This is the error of the sample of images:
    that of another training seed is not in it.
    """
    values = correct_N.double().cpu()
    generator = torch.Generator().manual_seed(seed)
    draws = (torch.randint(len(values), values.shape, generator=generator) for _ in range(resamples))
    means = torch.stack([values[drawn].mean() for drawn in draws])
    ends = torch.tensor([1 - level, 1 + level], dtype=means.dtype) / 2
    low, high = means.quantile(ends).tolist()
    return low, high


def with_interval(name: str, correct_N: Tensor) -> dict[str, float]:
    """The mean as ``name`` and the ends of its 95 % :func:`bootstrap_interval` as ``name_low`` and ``name_high``."""
    low, high = bootstrap_interval(correct_N)
    return {name: correct_N.double().mean().item(), f"{name}_low": low, f"{name}_high": high}
