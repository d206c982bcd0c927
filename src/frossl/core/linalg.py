"""Linear algebra that objectives and metrics share."""

from __future__ import annotations

import torch
from torch import Tensor

from frossl.core import dist


def centre_columns(z_VND: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """``z`` minus its column means over the (global) batch of ``n``, and the squared norm that is rounding noise.

    A constant column leaves only the rounding of its mean behind; normalising that would blow noise up to unit
    norm, so columns below the returned ``(V, 1, D)`` squared norm are to be treated as zero.
    """
    mean = dist.sum_over_ranks(z_VND.sum(1, keepdim=True)) / n
    return z_VND - mean, n * (16 * torch.finfo(z_VND.dtype).eps * mean).square()


def inverse_norm(z_VND: Tensor, dim: int, floor: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``z`` scaled to unit L2 norm along ``dim`` and the scale: 1 / norm, or 0 where the norm vanishes.

    ``dim`` 1 normalises columns over the global batch, 2 rows. Squares are summed as (z * z).sum(), which
    is faster and far more exact here than ``torch.linalg.vector_norm`` in float32.
    """
    buffer = z_VND * z_VND
    square = buffer.sum(dim, keepdim=True)
    r = inverse_root(dist.sum_over_ranks(square) if dim == 1 else square, floor)
    return torch.mul(z_VND, r, out=buffer), r


def inverse_root(square: Tensor, floor: Tensor | None = None) -> Tensor:
    """1 / sqrt(square), or 0 where ``square`` is not above ``floor`` and the smallest normal number."""
    least = torch.finfo(square.dtype).tiny
    alive = square > (least if floor is None else floor.clamp_min(least))
    return torch.where(alive, square.clamp_min(least).rsqrt(), 0)


def product_with_itself(x: Tensor) -> Tensor:
    """Batched ``x x'`` of ``(V, M, K)``: symmetric ``(V, M, M)``."""
    return x @ x.transpose(1, 2)


def covariance_spectrum(x_NF: Tensor) -> Tensor:
    """Eigenvalues of the covariance of the rows, descending, from the smaller of covariance and Gram matrix.

    ``min(N, F)`` numbers; rounding that would make one negative is cut off.
    """
    x = x_NF - x_NF.mean(0)
    n, width = x.shape
    matrix = (x.T @ x if n > width else x @ x.T) / n
    return torch.linalg.eigvalsh(matrix).flip(0).clamp_min(0)
