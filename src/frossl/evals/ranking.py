"""The order of several arms after a few seeds each, its margins, and how well two figures agree on it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from types import MappingProxyType
from typing import Any

import numpy as np

LEVEL = 0.95
"""Probability of the intervals."""


@dataclass(frozen=True)
class Ranking:
    """Means by arm, best first, and how far differences of two of them may be off.

    ``margin`` is that over ``seeds``, the same for every difference, from a spread of ``freedom`` degrees of freedom;
    None if it is unknown. ``images`` are those over held-out images, by both arms; empty if unknown. They are
    ``paired`` if the answers to each image were known.
    """

    means: dict[str, float]
    margin: float | None
    seeds: int
    freedom: int
    images: dict[str, dict[str, float]]
    paired: bool = False

    def over_images(self, one: str, other: str) -> float | None:
        """The margin of a difference over held-out images, if it is known."""
        return self.images.get(one, {}).get(other)

    def within(self, one: str, other: str) -> float | None:
        """The margin of a difference for other seeds and other held-out images; None if one of both is unknown.

        Each spread has a part of what seed and image do together in it, so that the sum of squares is rather too large.
        """
        images = self.over_images(one, other)
        return None if self.margin is None or images is None else math.hypot(self.margin, images)

    def apart(self, one: str, other: str) -> bool:
        """Whether the difference of two arms is larger than :meth:`within`."""
        within = self.within(one, other)
        return within is not None and abs(self.means[one] - self.means[other]) > within

    @property
    def widest(self) -> float | None:
        """The largest margin :meth:`within` of two arms, None if one is unknown."""
        found = [self.within(one, other) for one, other in combinations(self.means, 2)]
        return None if None in found else max((x for x in found if x is not None), default=None)


def rank(
    values: Mapping[str, Sequence[float]],
    errors: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    paired: bool = False,
) -> Ranking:
    """Arms by the mean of their ``values``, one for each seed, the same seeds in the same order for every arm.

    The margin over seeds is Tukey's honestly significant difference (Biometrics 1949) in a two-way layout of arms and
    seeds: all differences between two arms are within it of the true ones, together, with probability 95 %. What a
    seed does to all arms alike does not count; what is left is taken to spread alike in every arm. With two arms it is
    the paired interval of Student's t. With one seed, or one arm, there is nothing to measure the spread by.

    ``errors`` are standard errors of differences over held-out images, by both arms, as :func:`paired_error` has them;
    their margins hold together too, by the same distribution with as many degrees of freedom as there are images.
    """
    names = list(values)
    y_AS = np.array([values[name] for name in names], dtype=float)
    arms, seeds = y_AS.shape
    mean_A = y_AS.mean(1)
    ordered = {names[i]: float(mean_A[i]) for i in np.argsort(-mean_A, kind="stable")}
    factor = _studentised_range(arms, math.inf) / math.sqrt(2) if errors and arms > 1 else 0.0
    images = {one: {other: factor * error for other, error in of.items()} for one, of in errors.items()}
    freedom = (arms - 1) * (seeds - 1)
    if not freedom:
        return Ranking(ordered, None, seeds, freedom, images, paired)
    residual_AS = y_AS - mean_A[:, None] - y_AS.mean(0) + y_AS.mean()
    variance = (residual_AS**2).sum() / freedom
    margin = _studentised_range(arms, freedom) * math.sqrt(variance / seeds)
    return Ranking(ordered, margin, seeds, freedom, images, paired)


def paired_error(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """Standard error over held-out images of the difference of two accuracies, each the mean over seeds.

    ``one`` and ``other`` are right and wrong answers ``(N,)`` by seed, of both arms to the same images. What an image
    does to both arms alike does not count, and images that seeds share count once.

    >>> right, half = np.array([True] * 4), np.array([True, False] * 2)
    >>> paired_error([right], [right]), round(paired_error([right], [half]), 4)
    (0.0, 0.2887)
    """
    differences = [a.astype(float) - b.astype(float) for a, b in zip(one, other, strict=True)]
    if len({len(d_N) for d_N in differences}) > 1:  # each seed has images of its own
        return math.sqrt(sum(d_N.var(ddof=1) / len(d_N) for d_N in differences)) / len(differences)
    d_N = np.mean(differences, axis=0)
    return math.sqrt(d_N.var(ddof=1) / len(d_N))


def spread_range(freedom: int) -> tuple[float, float]:
    """95 % interval of the true spread as multiples of a measured one, by its degrees of freedom.

    >>> [round(end, 2) for end in spread_range(2)]
    [0.52, 6.28]
    """
    from scipy import stats

    ends = stats.chi2.ppf([(1 + LEVEL) / 2, (1 - LEVEL) / 2], freedom)
    low, high = np.sqrt(freedom / ends)
    return float(low), float(high)


@cache
def _studentised_range(arms: int, freedom: float) -> float:
    from scipy import stats

    return float(stats.studentized_range.ppf(LEVEL, arms, freedom))


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
            fraction = (target - values[i - 1]) / (value - values[i - 1])
            return float(at[i - 1] + fraction * (at[i] - at[i - 1])), False
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
