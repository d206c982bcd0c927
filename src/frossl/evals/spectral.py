"""Spectrum of the feature covariance."""

from __future__ import annotations

from torch import Tensor

from frossl.core.linalg import covariance_spectrum
from frossl.core.types import Features
from frossl.evals import metric


def effective_rank(x_NF: Tensor) -> float:
    """Participation ratio of the covariance eigenvalues: (sum l)^2 / sum l^2, exp of the order-2 Renyi entropy.

    Between 1 (all variance in one direction) and min(N - 1, F); 0 for constant features.
    """
    eigenvalues = covariance_spectrum(x_NF)
    total = eigenvalues.sum()
    return (total * total / (eigenvalues * eigenvalues).sum()).item() if total > 0 else 0.0


@metric(
    "rank",
    needs_labels=False,
    protocol="rank: effective rank, the participation ratio of the covariance eigenvalues of held-out features",
)
def rank(features: Features) -> dict[str, float]:
    """Effective rank of the held-out features."""
    return {"effective_rank": effective_rank(features.test_NF)}
