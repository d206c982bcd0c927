"""How far a figure may be off because the held-out images are a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from scipy.special import ndtri, stdtrit
from torch import Tensor

GROUPS = 10
"""Parts of the images that the jackknife leaves out in turn."""


def bootstrap_interval(
    correct_N: Tensor, seed: int = 0, *, resamples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval ``(low, high)`` of the mean of one value per held-out image, as right or wrong.

    Images are drawn with replacement (Efron, Annals of Statistics 1979). This is the error of the sample of images:
    that of another training seed is not in it. Answers that are all right or all wrong have nothing to draw from, which
    says little if they are few: their interval is Wilson's (JASA 1927), n / (n + z^2) to 1 where all are right.
    """
    values = correct_N.double().cpu()
    if correct_N.dtype == torch.bool and bool((values == values[0]).all()):
        doubt = 1 - len(values) / (len(values) + float(ndtri((1 + level) / 2)) ** 2)
        return (1 - doubt, 1.0) if values[0] else (0.0, doubt)
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


def random_groups(n: int, groups: int = GROUPS) -> list[Tensor]:
    """Indices of ``n`` images in disjoint random groups of about one size, at most ``n`` of them; always the same."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    return list(order.tensor_split(min(groups, n)))


def with_jackknife(whole: dict[str, float], without: Sequence[dict[str, float]]) -> dict[str, float]:
    """Each value of ``whole`` with the ends of its 95 % interval, from the values ``without`` each group of images.

    The delete-a-group jackknife, for figures that are no means, such as ranks: the variance is (g - 1) / g times the
    sum of squares about their mean of the g values, and the interval that of Student's t with g - 1 degrees of freedom.
    With a single group, or where a group leaves a figure undefined, there is no interval.
    """
    groups, values = len(without), dict(whole)
    for name, value in whole.items():
        if groups < 2 or not all(name in one for one in without):
            continue
        left = torch.tensor([one[name] for one in without], dtype=torch.float64)
        error = ((groups - 1) / groups * (left - left.mean()).square().sum()).sqrt().item()
        margin = float(stdtrit(groups - 1, 0.975)) * error
        values |= {f"{name}_low": value - margin, f"{name}_high": value + margin}
    return values


def jackknife(statistic: Callable[[Tensor], dict[str, float]], n: int) -> dict[str, float]:
    """The values of ``statistic`` of the indices of all ``n`` images, :func:`with_jackknife`."""
    groups = random_groups(n)
    without = [statistic(torch.cat(groups[:i] + groups[i + 1 :]).sort().values) for i in range(len(groups)) if n > 1]
    return with_jackknife(statistic(torch.arange(n)), without)
