"""Statistics of features of several views at one step: their spectrum, or figures that cost one matrix product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from frossl.core.axes import fold
from frossl.core.linalg import centred, covariance_spectrum, or_nothing, second_moment_spectrum
from frossl.evals.alignment import alignment, uniformity
from frossl.evals.lidar import lidar
from frossl.evals.spectral import Moments, collision_entropy, condition_number, summary, von_neumann_entropy

SHOWN = 64
"""Most eigenvalues in a row; of more, those at indices that are evenly spaced on a logarithmic scale."""
PAIRED = 256
"""Most samples for the pairwise distances of uniformity."""


@or_nothing
def spectrum_of(h_VNF: Tensor, moments: Moments | None = None) -> dict[str, Any]:
    """The spectrum of the covariance of ``(V, N, F)`` features, over all samples of all views.

    The figures of :func:`frossl.evals.spectral.summary`; ``eigenvalues``, largest first, at ``places`` counted from 1;
    ``variance``, their sum; ``uniformity``; of two views and more ``alignment`` and ``lidar``. Where there are
    ``moments`` of more samples, all but the last three are of those. ``samples`` says how many. Empty if a feature is
    not finite, or no eigenvalues can be had. Numbers have six digits.
    """
    x_BF = fold(h_VNF)
    if moments is None and len(x_BF) > x_BF.shape[1]:  # one product for both spectra
        moments = Moments.of(x_BF)
    if moments is None:
        count, mean_F = len(x_BF), x_BF.double().mean(0)
        covariance_K, second_K = covariance_spectrum(x_BF), second_moment_spectrum(x_BF)
    else:
        count, mean_F = moments.count, moments.mean_F
        covariance_K, second_K = moments.covariance_spectrum(), moments.second_moment_spectrum()
    values: dict[str, Any] = {"samples": count, "variance": covariance_K.sum().item()}
    values |= summary(covariance_K, second_K, mean_F)
    if len(x_BF) > 1:
        values["uniformity"] = uniformity(x_BF, PAIRED)
    if len(h_VNF) > 1:
        values |= {"alignment": alignment(h_VNF), "lidar": lidar(h_VNF)}
    places = shown_places(len(covariance_K))
    return _rounded(values | {"places": places, "eigenvalues": covariance_K[torch.tensor(places) - 1].tolist()})


def shown_places(count: int) -> list[int]:
    """Which of ``count`` eigenvalues are in a row, counted from 1: all, or about :data:`SHOWN` of them.

    >>> shown_places(3)
    [1, 2, 3]
    >>> shown_places(1024)[-3:]
    [822, 917, 1024]
    """
    if count <= SHOWN:
        return list(range(1, count + 1))
    return sorted({round(count ** (i / (SHOWN - 1))) for i in range(SHOWN)})


@or_nothing
def leading(h_VNF: Tensor, count: int) -> dict[str, Any]:
    """The ``count`` largest eigenvalues of the covariance of ``(V, N, F)`` features, with figures of all of them.

    ``condition_number`` is :func:`frossl.evals.spectral.condition_number`; ``condition_leading`` that of the ``count``
    largest.
    """
    if not bool(torch.isfinite(h_VNF).all()):
        return {}
    covariance_K = covariance_spectrum(fold(h_VNF))
    values = {
        "variance": covariance_K.sum().item(),
        "collision_entropy": collision_entropy(covariance_K),
        "von_neumann_entropy": von_neumann_entropy(covariance_K),
        "condition_number": condition_number(covariance_K),
        "condition_leading": condition_number(covariance_K[:count]),
        "eigenvalues": covariance_K[:count].tolist(),
    }
    return _rounded({name: value for name, value in values.items() if value is not None})


def batch_statistics(h_VNF: Tensor) -> dict[str, float]:
    """Figures of ``(V, N, F)`` features, V >= 2, that need no eigenvalue.

    - ``variance``: of all samples, summed over features
    - ``effective_rank``: participation ratio of the covariance of all samples
    - ``mean_to_spread``: norm of the mean over the root of the variance, at most 1e6
    - ``view_noise``: share of the variance that is between views of an image: 0 if they are equal, 1 if they have no
      more in common than views of different images
    - ``least_view``: variance of the view that varies least over that of the average view
    - ``least_agreement``: the smallest correlation of a view with the mean of the others

    Empty if a feature is not finite. Constant features have only ``variance`` 0 and ``effective_rank`` 0.
    """
    if not bool(torch.isfinite(h_VNF).all()):
        return {}
    views, images, width = h_VNF.shape
    x_BF = centred(fold(h_VNF))
    x_VNF = x_BF.unflatten(0, (views, images))
    total = (x_BF * x_BF).sum()
    if not bool(total > 0):
        return {"variance": 0.0, "effective_rank": 0.0}
    moment = x_BF.T @ x_BF if len(x_BF) > width else x_BF @ x_BF.T
    between_views = (x_VNF - x_VNF.mean(0)).square().sum() * (views / (views - 1)) / total
    own_VNF = x_VNF - x_VNF.mean(1, keepdim=True)
    others_VNF = (own_VNF.sum(0) - own_VNF) / (views - 1)
    square_V = own_VNF.square().sum((1, 2))
    norms_V = (square_V * others_VNF.square().sum((1, 2))).sqrt()
    agreement_V = (own_VNF * others_VNF).sum((1, 2)) / norms_V.clamp_min(torch.finfo(norms_V.dtype).tiny)
    spread = (total / len(x_BF)).sqrt()
    values = {
        "variance": total / len(x_BF),
        "effective_rank": total * total / (moment * moment).sum(),
        "mean_to_spread": (h_VNF.double().mean((0, 1)).norm() / spread).clamp_max(1e6),
        "view_noise": between_views,
        "least_view": square_V.min() / square_V.mean().clamp_min(torch.finfo(square_V.dtype).tiny),
        "least_agreement": agreement_V.min(),
    }
    return _rounded({name: value.item() for name, value in values.items()})


def _rounded(value: Any) -> Any:
    """Rounds numbers to six digits, to keep rows short."""
    if isinstance(value, dict):
        return {name: _rounded(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
