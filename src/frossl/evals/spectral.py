"""Spectrum of the feature covariance, as numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from frossl.core.distributed import global_count, sum_over_ranks, world_size
from frossl.core.linalg import covariance_spectrum, eigenvalues, rounding_noise, second_moment_spectrum
from frossl.core.types import Features
from frossl.evals import Column, metric
from frossl.evals.interval import random_groups, with_jackknife

FIRST, LAST, FEWEST = 11, 100, 10
"""Eigenvalues, counted from 1, to which the exponent of the power law is fitted, and how many of them it takes."""


def shares(eigenvalues_K: Tensor) -> Tensor:
    """Eigenvalues as shares of their sum; all zero if it is zero."""
    total = eigenvalues_K.sum()
    return eigenvalues_K / torch.where(total > 0, total, 1)


def nonzero(eigenvalues_K: Tensor) -> Tensor:
    """Those of descending eigenvalues that are more than rounding in float64."""
    floor = eigenvalues_K[:1] * (len(eigenvalues_K) * torch.finfo(eigenvalues_K.dtype).eps)
    return eigenvalues_K[eigenvalues_K > floor]


def von_neumann_entropy(eigenvalues_K: Tensor) -> float:
    """S_1 = -sum p log p of the shares p, in nats: 0 to log min(N - 1, F)."""
    return torch.special.entr(shares(nonzero(eigenvalues_K))).sum().item()


def collision_entropy(eigenvalues_K: Tensor) -> float:
    """S_2 = -log sum p^2 of the shares p, the order-2 Renyi entropy that FroSSL raises, in nats; at most S_1.

    That is -log ||C / tr C||_F^2 (arXiv 2310.02903). 0 where nothing varies.
    """
    square = shares(eigenvalues_K).square().sum()
    return max(0.0, -square.log().item()) if square > 0 else 0.0


def participation_ratio(eigenvalues_K: Tensor) -> float:
    """exp(S_2) = (sum l)^2 / sum l^2: 1 to min(N - 1, F), 0 where nothing varies."""
    total = eigenvalues_K.sum()
    return (total * total / (eigenvalues_K * eigenvalues_K).sum()).item() if total > 0 else 0.0


def entropy_rank(eigenvalues_K: Tensor) -> float:
    """exp(S_1): 1 to min(N - 1, F), never below the participation ratio, 0 where nothing varies.

    The effective rank of Roy and Vetterli (EUSIPCO 2007) on eigenvalues of the covariance; of singular values it is
    :func:`rankme`.
    """
    kept = nonzero(eigenvalues_K)
    return torch.special.entr(shares(kept)).sum().exp().item() if len(kept) else 0.0


def rankme(second_moment_K: Tensor) -> float:
    """exp of the entropy of the singular values, as shares of their sum, of the features as they are, not centred.

    Singular values are roots of the eigenvalues of the second moment. RankMe (Garrido et al., arXiv 2210.02885, eq. 1
    and 2) without the 1e-7 added to each share there. 1 to min(N, F); constant features that are not zero have 1, as
    the mean counts.
    """
    return entropy_rank(nonzero(second_moment_K).sqrt())


def power_law_exponent(eigenvalues_K: Tensor) -> float | None:
    """alpha of l_i ~ i^-alpha: minus the least-squares slope of log l_i against log i, i from 11 to 100.

    alpha-ReQ (Agrawal et al., NeurIPS 2022). The first few are left out as they follow no law; the range ends with
    the eigenvalues that are not zero. Their code also weights by 1 / i; here all count alike. None if fewer than
    :data:`FEWEST` of the range are not zero.
    """
    y = nonzero(eigenvalues_K)[FIRST - 1 : LAST].log()
    if len(y) < FEWEST:
        return None
    x = torch.arange(FIRST, FIRST + len(y), dtype=y.dtype, device=y.device).log()
    x = x - x.mean()
    return -((x * y).sum() / (x * x).sum()).item()


def condition_number(eigenvalues_K: Tensor) -> float | None:
    """Largest over smallest eigenvalue of the covariance of those that are not zero; None where nothing varies."""
    kept = nonzero(eigenvalues_K)
    return (kept[0] / kept[-1]).item() if len(kept) else None


def stable_rank(eigenvalues_K: Tensor) -> float:
    """Sum over largest eigenvalue, ||X||_F^2 / ||X||_2^2 of centred features: 1 to min(N - 1, F), 0 if constant."""
    largest = eigenvalues_K[0]
    return (eigenvalues_K.sum() / largest).item() if largest > 0 else 0.0


def effective_rank(x_NF: Tensor) -> float:
    """Participation ratio of the covariance eigenvalues: (sum l)^2 / sum l^2, exp of the order-2 Renyi entropy.

    Between 1 (all variance in one direction) and min(N - 1, F); 0 for constant features.
    """
    return participation_ratio(covariance_spectrum(x_NF))


def summary(covariance_K: Tensor, second_moment_K: Tensor, mean_F: Tensor) -> dict[str, float]:
    """Every figure of this file from the eigenvalues of covariance and uncentred second moment, and the mean.

    ``mean_to_spread`` is the norm of the mean over the root of the total variance. Undefined figures are left out: the
    exponent with few eigenvalues, condition number and ``mean_to_spread`` of constant features.
    """
    spread = covariance_K.sum().sqrt()
    values = {
        "effective_rank": participation_ratio(covariance_K),
        "entropy_rank": entropy_rank(covariance_K),
        "collision_entropy": collision_entropy(covariance_K),
        "von_neumann_entropy": von_neumann_entropy(covariance_K),
        "stable_rank": stable_rank(covariance_K),
        "rankme": rankme(second_moment_K),
        "power_law_exponent": power_law_exponent(covariance_K),
        "condition_number": condition_number(covariance_K),
        "mean_to_spread": (mean_F.double().norm() / spread).item() if spread > 0 else None,
    }
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Moments:
    """Count, mean ``(F,)`` and scatter ``(F, F)`` = sum of (x - mean)(x - mean)' of features, in float64.

    Moments of parts add up to those of the whole (Chan, Golub and LeVeque, 1979), so the spectrum of more features
    than memory holds takes one pass: ``sum(map(Moments.of, batches), Moments.none(width))``.
    """

    count: int
    mean_F: Tensor
    scatter_FF: Tensor
    eps: float = torch.finfo(torch.float64).eps
    """relative precision of the least precise features that came in"""

    @classmethod
    def none(cls, width: int, device: torch.device | str = "cpu") -> Moments:
        """Moments of no features."""
        zeros = torch.zeros(width, width, dtype=torch.float64, device=device)
        return cls(0, zeros[0].clone(), zeros)

    @classmethod
    def of(cls, x_NF: Tensor) -> Moments:
        """Moments of one batch."""
        x = x_NF.double()
        mean = x.mean(0)
        x = x - mean
        return cls(len(x), mean, x.T @ x, torch.finfo(x_NF.dtype).eps)

    def __add__(self, other: Moments) -> Moments:
        """Moments of both together."""
        count = self.count + other.count
        share = other.count / max(count, 1)
        step = other.mean_F - self.mean_F
        between = (self.count * share) * torch.outer(step, step)
        scatter = self.scatter_FF + other.scatter_FF + between
        return Moments(count, self.mean_F + share * step, scatter, max(self.eps, other.eps))

    def to(self, device: torch.device) -> Moments:
        """The same on ``device``."""
        return Moments(self.count, self.mean_F.to(device), self.scatter_FF.to(device), self.eps)

    def over_ranks(self) -> Moments:
        """Moments of what all ranks have together; every rank must ask."""
        if world_size() == 1:
            return self
        count = global_count(self.count, self.mean_F)
        mean = sum_over_ranks(self.count * self.mean_F) / max(count, 1)
        step = self.mean_F - mean
        scatter = sum_over_ranks(self.scatter_FF + self.count * torch.outer(step, step))
        return Moments(count, mean, scatter, self.eps)

    def covariance_spectrum(self) -> Tensor:
        """Eigenvalues of the covariance, ``(F,)``, descending: as of all features at once, and zeros beyond N."""
        noise = rounding_noise(self.mean_F, self.count, self.eps)
        varies = (self.scatter_FF.diagonal() > noise).double()
        return eigenvalues(self.scatter_FF * torch.outer(varies, varies) / max(self.count, 1))

    def second_moment_spectrum(self) -> Tensor:
        """Eigenvalues of the second moment about 0, ``(F,)``, descending."""
        return eigenvalues(self.scatter_FF / max(self.count, 1) + torch.outer(self.mean_F, self.mean_F))

    def summary(self) -> dict[str, float]:
        """The figures of :func:`spectrum`."""
        return summary(self.covariance_spectrum(), self.second_moment_spectrum(), self.mean_F)


_RANK = {"effective_rank": Column("rank", "effective rank", digits=1)}


@metric(
    "rank",
    needs_labels=False,
    protocol="rank: effective rank, the participation ratio of the covariance eigenvalues of held-out features; "
    "interval by jackknife over images",
    columns=_RANK,
    order=100,
    default_of=("evaluate",),
    glossary={
        "Effective rank": "Along about how many directions the features vary, from 1 (collapsed) to the number of "
        "them. More is not always better, but near 1 nothing was learned."
    },
)
def rank(features: Features) -> dict[str, float]:
    """Effective rank of the held-out features, and its interval; nothing of a single image, which varies in no way."""
    x = features.test_NF
    if len(x) < 2:
        return {}
    left = [{"effective_rank": participation_ratio(m.covariance_spectrum())} for m in _without_each_group(x)]
    return with_jackknife({"effective_rank": effective_rank(x)}, left)


@metric(
    "spectrum",
    needs_labels=False,
    protocol="spectrum: of the covariance of held-out backbone features, not rescaled; RankMe of the features not "
    f"centred; exponent of the power law by least squares over eigenvalues {FIRST} to {LAST}; "
    "intervals by jackknife over images",
    columns={**_RANK, "rankme": Column("RankMe", digits=1), "power_law_exponent": Column("exponent", better=None)},
    order=101,
    default_of=("compare",),
)
def spectrum(features: Features) -> dict[str, float]:
    """:func:`summary` of the held-out features, and its intervals; nothing of a single image."""
    x = features.test_NF
    if len(x) < 2:
        return {}
    whole = summary(covariance_spectrum(x), second_moment_spectrum(x), x.double().mean(0))
    return with_jackknife(whole, [m.summary() for m in _without_each_group(x)])


def _without_each_group(x_NF: Tensor) -> Iterator[Moments]:
    """Moments of the features without one of the groups of the jackknife, in turn."""
    parts = [Moments.of(x_NF[group.to(x_NF.device)]) for group in random_groups(len(x_NF))]
    nothing = Moments.none(x_NF.shape[1], x_NF.device)
    return (sum(parts[:i] + parts[i + 1 :], nothing) for i in range(len(parts)) if len(parts) > 1)
