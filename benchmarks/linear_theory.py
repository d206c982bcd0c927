"""Objectives of a linear map of toy data: simulated, as differential equations of eigenvalues, and at rest; duality.

docs/theory.md derives what is here; benchmarks/theory.py draws it. Everything is in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import hadamard
from torch import Tensor

from frossl.losses import barlow_twins, frossl

PULL = 4.0
"""w D / N of the default FroSSL."""


@dataclass(frozen=True)
class Objective:
    """A loss of two views ``(2, N, D)``, and its derivative with respect to the eigenvalues ``(..., D)``.

    The derivative is a function of the eigenvalues of the covariance of either view and of how much the two views
    correlate along each direction.
    """

    loss: Callable[[Tensor], Tensor]
    slope: Callable[[np.ndarray, np.ndarray], np.ndarray]


def plain_barlow() -> Objective:
    """||C - I||_F^2 of the covariance C between two views as it is: Simon et al., arXiv 2303.15438."""

    def loss(z_VND: Tensor) -> Tensor:
        c = z_VND[0].T @ z_VND[1] / z_VND.shape[1]
        return ((c + c.T) / 2 - torch.eye(len(c), dtype=c.dtype)).square().sum()

    return Objective(loss, lambda values, agreement: 2 * agreement * (agreement * values - 1))


def barlow(off_diagonal_weight: float = 1.0) -> Objective:
    """Barlow Twins as trained: columns are standardised."""

    def loss(z_VND: Tensor) -> Tensor:
        return barlow_twins(z_VND, off_diagonal_weight=off_diagonal_weight, epsilon=0.0).total

    def slope(values: np.ndarray, agreement: np.ndarray) -> np.ndarray:
        total, p, q = _shares(values, agreement)
        d = values.shape[-1]
        flatness = (agreement * p) * agreement - ((agreement * p) ** 2).sum(-1, keepdims=True)
        towards = agreement - q
        on, off = -2 * d * (1 - q) * towards, 2 * d * d * flatness - 2 * d * q * towards
        return (on + off_diagonal_weight * off) / total

    return Objective(loss, slope)


def whole_frossl(pull: float = PULL, log: bool = True) -> Objective:
    """FroSSL with w D / N = ``pull``, for one of two views that are alike; without its logarithm if not ``log``."""

    def loss(z_VND: Tensor) -> Tensor:
        return frossl(z_VND, invariance_weight=pull * z_VND.shape[1] / z_VND.shape[2], log=log).total / 2

    def slope(values: np.ndarray, agreement: np.ndarray) -> np.ndarray:
        total, p, q = _shares(values, agreement)
        square = (p * p).sum(-1, keepdims=True)
        return (2 * (p - square) / (square if log else 1) - pull * (agreement - q)) / total

    return Objective(loss, slope)


def _shares(values: np.ndarray, agreement: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum of the eigenvalues, each as a share of it, and the correlation of the views over all."""
    total = values.sum(-1, keepdims=True)
    p = values / total
    return total, p, (agreement * p).sum(-1, keepdims=True)


def toy_views(data_M: Tensor, agreement_M: Tensor, seed: int = 0) -> Tensor:
    """Two views ``(2, N, M)``, N = 4 M, whose sample moments are exact.

    Mean 0, covariance of each the diagonal ``data``, covariance between the two the diagonal ``agreement * data``.
    """
    m = len(data_M)
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(4 * m, 3 * m, dtype=torch.float64, generator=generator)
    q = torch.linalg.qr(torch.cat([torch.ones_like(normal[:, :1]), normal], dim=1)).Q[:, 1:]
    shared, *own = (q * math.sqrt(4 * m)).split(m, dim=1)
    signal, noise = (data_M * agreement_M).sqrt(), (data_M * (1 - agreement_M)).sqrt()
    return torch.stack([shared * signal + x * noise for x in own])


def flat_rotation(modes: int) -> Tensor:
    """A rotation whose entries are equal but for their sign: every output has the same share of every direction."""
    return torch.from_numpy(hadamard(modes) / math.sqrt(modes))


def descend(objective: Objective, x_VNM: Tensor, w_DM: Tensor, rate: float, steps: int, every: int) -> Tensor:
    """Gradient descent on the linear map ``w``: covariances ``(T, D, D)`` of view 0, every so many steps."""
    w_DM = w_DM.clone().requires_grad_()
    found = []
    for step in range(steps + 1):
        if step % every == 0:
            z_ND = x_VNM[0] @ w_DM.detach().T
            found.append(z_ND.T @ z_ND / len(z_ND))
        (gradient,) = torch.autograd.grad(objective.loss(x_VNM @ w_DM.T), w_DM)
        with torch.no_grad():
            w_DM -= rate * gradient
    return torch.stack(found)


def spectrum(c_TDD: Tensor) -> np.ndarray:
    """Eigenvalues of symmetric matrices, descending."""
    return torch.linalg.eigvalsh(c_TDD).flip(-1).numpy()


def correlation(c_TDD: Tensor) -> Tensor:
    """Covariances with a diagonal of ones: what normalised objectives see."""
    roots = c_TDD.diagonal(dim1=-2, dim2=-1).sqrt()
    return c_TDD / (roots[..., :, None] * roots[..., None, :])


def flow(
    objective: Objective, data: np.ndarray, agreement: np.ndarray, start: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """Eigenvalues ``(T, D)`` at ``times`` by d log l_j / dt = -4 g_j dL/dl_j, g being the eigenvalues of the data."""

    def change(t: float, logs: np.ndarray) -> np.ndarray:
        return -4 * data * objective.slope(np.exp(logs), agreement)

    span = (0.0, times[-1])
    solved = solve_ivp(change, span, np.log(start), "LSODA", t_eval=times, rtol=1e-10, atol=1e-12)
    return np.exp(solved.y.T)


def rate_error(objective: Objective, rotation_DD: Tensor, seed: int = 0) -> float:
    """Largest error of -4 g l dL/dl against what the gradient does to random eigenvalues, over the largest such rate.

    ``rotation`` is that of the outputs: the equations are meant for :func:`flat_rotation`.
    """
    generator = torch.Generator().manual_seed(seed)
    data, agreement, roots = torch.rand(3, len(rotation_DD), dtype=torch.float64, generator=generator) * 0.9 + 0.1
    w = (rotation_DD * roots).requires_grad_()
    (gradient,) = torch.autograd.grad(objective.loss(toy_views(data, agreement, seed) @ w.T), w)
    found = (-2 * roots * data * (rotation_DD * gradient).sum(0)).numpy()
    values = (roots * roots * data).numpy()
    expected = -4 * data.numpy() * values * objective.slope(values, agreement.numpy())
    return float(abs(found - expected).max() / abs(expected).max())


def effective_rank(values: np.ndarray) -> np.ndarray:
    """(sum l)^2 / sum l^2 along the last axis."""
    return values.sum(-1) ** 2 / (values * values).sum(-1)


def fewest_steps(
    objective: Objective, data: np.ndarray, start: float, rates: np.ndarray, share: float = 0.9, limit: int = 100_000
) -> int | None:
    """Steps of gradient descent, at the best of ``rates``, until the effective rank stays at ``share`` of D or more.

    The map starts with all squared singular values ``start``, and the views are equal. None if no rate does it.
    """
    roots = np.full((len(rates), len(data)), math.sqrt(start))
    last_below = np.zeros(len(rates), dtype=int)
    agreement = np.ones(len(data))
    with np.errstate(all="ignore"):  # rates that are too high diverge
        for step in range(limit):
            values = roots * roots * data
            last_below[~(effective_rank(values) >= share * len(data))] = step + 1
            if step > 2 * last_below.min() + 100:
                return int(last_below.min())
            roots = roots * (1 - 2 * rates[:, None] * data * objective.slope(values, agreement))
    return None


def steady_shares(agreement: np.ndarray, pull: float) -> np.ndarray:
    """Shares of the variance where FroSSL with w D / N = ``pull`` rests, for directions whose views agree so much.

    p_j = P (1 + pull / 2 (r_j - q)), P = sum p^2 and q = sum r p, over as many of the directions that agree most as can
    all have a share above 0.
    """
    for least in np.sort(agreement):
        kept = agreement >= least
        r = agreement * pull / 2
        room = 0.25 - r[kept].var()
        if room >= 0:
            p = 0.5 - r[kept].mean() + math.sqrt(room) + r  # 1 - pull / 2 q is a root of a quadratic equation
            if p[kept].min() > 0:
                return np.where(kept, p, 0) / p[kept].sum()
    raise AssertionError("one direction alone always rests")


def off_diagonal(c: Tensor) -> Tensor:
    """Sum of squares off the diagonal: of Z'Z the dimension-contrastive loss, of ZZ' the sample-contrastive one."""
    return (c * c).sum() - (c.diagonal() ** 2).sum()


def duality(z_ND: Tensor) -> dict[str, float]:
    """Errors of the identities of docs/theory.md on the embeddings ``z``, and how far it is from both forms at once."""
    n, d = z_ND.shape
    gram, moment = z_ND @ z_ND.T, z_ND.T @ z_ND
    square = (moment * moment).sum()
    spectra = [torch.linalg.eigvalsh(c).flip(0)[: min(n, d)] for c in (gram, moment)]
    column_fourths, row_fourths = ((z_ND**2).sum(axis).square().sum() for axis in (0, 1))
    columns, rows = (z_ND / z_ND.norm(dim=axis, keepdim=True) for axis in (0, 1))
    turn = torch.linalg.qr(torch.randn(d, d, dtype=z_ND.dtype, generator=torch.Generator().manual_seed(0))).Q

    def entropy(z: Tensor, **options: Any) -> Tensor:
        return frossl([z, z], invariance_weight=0.0, centre=False, **options).total / 2

    gradients = []
    for form in (lambda z: off_diagonal(z.T @ z), lambda z: off_diagonal(z @ z.T)):
        leaf = z_ND.clone().requires_grad_()
        gradients += torch.autograd.grad(form(leaf / leaf.norm(dim=0, keepdim=True)), leaf)
    by_columns, by_rows = entropy(z_ND), entropy(z_ND, normalise="sample")
    return {
        "norms": ((gram * gram).sum() / square - 1).abs().item(),
        "spectra": ((spectra[0] - spectra[1]).abs().max() / spectra[0][0]).item(),
        "sum": ((off_diagonal(moment) + column_fourths - off_diagonal(gram) - row_fourths) / square).abs().item(),
        "columns": (by_columns - ((off_diagonal(columns.T @ columns) + d) / d**2).log()).abs().item(),
        "rows": (by_rows - ((off_diagonal(rows @ rows.T) + n) / n**2).log()).abs().item(),
        "cosine": torch.nn.functional.cosine_similarity(*(g.flatten() for g in gradients), dim=0).item(),
        "turned": (entropy(z_ND @ turn) - by_columns).item(),
    }


def embeddings() -> dict[str, Tensor]:
    """Inputs of :func:`duality`."""
    generator = torch.Generator().manual_seed(0)

    def normal(n: int, d: int) -> Tensor:
        return torch.randn(n, d, dtype=torch.float64, generator=generator)

    decay = torch.arange(1, 257, dtype=torch.float64) ** -0.5
    turn = torch.linalg.qr(normal(256, 256)).Q
    return {
        "normal, 128 x 512": normal(128, 512),
        "normal, 512 x 128": normal(512, 128),
        "power law, 512 x 256": normal(512, 256) * decay @ turn,
        "the same, rows of uneven length": (normal(512, 256) * decay @ turn) * normal(512, 1).exp(),
    }
