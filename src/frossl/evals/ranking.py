"""What may be said of several arms after a few seeds each, and how well one figure orders them as another does."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """Means by arm, best first. ``margin`` is the same for every difference of two of them, None if it is unknown."""

    means: dict[str, float]
    margin: float | None
    seeds: int

    def apart(self, one: str, other: str) -> bool:
        """Whether the difference of two arms is larger than the margin."""
        return self.margin is not None and abs(self.means[one] - self.means[other]) > self.margin


def rank(values: Mapping[str, Sequence[float]], level: float = 0.95) -> Ranking:
    """Arms by the mean of their ``values``, one for each seed, the same seeds in the same order for every arm.

    The margin is Tukey's honestly significant difference (Biometrics 1949) in a two-way layout of arms and seeds: all
    differences between two arms are within it of the true ones, together, with probability ``level``. What a seed does
    to all arms alike does not count; what is left is taken to spread alike in every arm. With two arms it is the paired
    t-interval. With one seed, or one arm, there is nothing to measure the spread by.
    """
    names = list(values)
    y_AS = np.array([values[name] for name in names], dtype=float)
    arms, seeds = y_AS.shape
    mean_A = y_AS.mean(1)
    ordered = {names[i]: float(mean_A[i]) for i in np.argsort(-mean_A, kind="stable")}
    if arms < 2 or seeds < 2:
        return Ranking(ordered, None, seeds)
    residual_AS = y_AS - mean_A[:, None] - y_AS.mean(0) + y_AS.mean()
    freedom = (arms - 1) * (seeds - 1)
    variance = (residual_AS**2).sum() / freedom
    return Ranking(ordered, _studentised_range(level, arms, freedom) * math.sqrt(variance / seeds), seeds)


@cache
def _studentised_range(level: float, arms: int, freedom: int) -> float:
    from scipy import stats

    return float(stats.studentized_range.ppf(level, arms, freedom))


@dataclass(frozen=True)
class Agreement:
    """How two figures order the same arms: 1 alike, -1 the other way round. ``p`` is that of Kendall's tau."""

    spearman: float
    kendall: float
    p: float
    arms: int


def agreement(one: Sequence[float], other: Sequence[float]) -> Agreement | None:
    """Rank correlations of two figures of the same arms; None with fewer than three, or where all have one value.

    ``p`` is how often arms in random order would agree, or disagree, as much (exact without ties).
    """
    from scipy import stats

    if len(one) < 3 or len(set(one)) < 2 or len(set(other)) < 2:
        return None
    spearman: Any = stats.spearmanr(one, other)
    kendall: Any = stats.kendalltau(one, other)
    return Agreement(float(spearman.statistic), float(kendall.statistic), float(kendall.pvalue), len(one))


def first_reached(at: Sequence[float], values: Sequence[float], target: float) -> tuple[float, bool] | None:
    """Where a curve first gets to ``target``, straight between its points; None if it does not.

    Second is whether it was there at its first point already and so got there before, unless that is where all begins.

    >>> first_reached([10, 20, 30], [0.1, 0.3, 0.2], 0.2), first_reached([10, 20], [0.1, 0.3], 0.4)
    ((15.0, False), None)
    >>> first_reached([10, 20], [0.3, 0.4], 0.2), first_reached([0, 20], [0.3, 0.4], 0.2)
    ((10.0, True), (0.0, False))
    """
    for i, value in enumerate(values):
        if value >= target:
            if i == 0:
                return float(at[0]), at[0] > 0
            share = (target - values[i - 1]) / (value - values[i - 1])
            return float(at[i - 1] + share * (at[i] - at[i - 1])), False
    return None


def half_interval(values: Sequence[float]) -> float | None:
    """Half the 95 % interval of the mean over seeds, Student's t; None of one seed.

    >>> half_interval([0.5]), round(half_interval([0.5, 0.6]), 3)
    (None, 0.635)
    """
    from scipy import stats

    if len(values) < 2:
        return None
    return float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
