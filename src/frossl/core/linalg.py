"""Linear algebra that objectives and metrics share."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from frossl.core import dist

CACHE = 4 * 2**20
"""Bytes that are safely in a processor's last cache."""


def centre_columns(z_VND: Tensor, n: int, keep_noise: bool) -> tuple[Tensor, Tensor]:
    """``z`` minus its column means over the (global) batch of ``n``, and the squared norm that is rounding noise.

    A constant column leaves only the rounding of its mean behind; normalising that would blow noise up to unit
    norm. Columns below the returned ``(V, 1, D)`` squared norm are to be treated as zero, or, without
    ``keep_noise``, are set to zero here.
    """
    mean = dist.sum_over_ranks(z_VND.sum(1, keepdim=True)) / n
    z = z_VND - mean
    floor = n * (16 * torch.finfo(z.dtype).eps * mean.detach()).square()
    if not keep_noise:
        z = z * (dist.sum_over_ranks((z * z).sum(1, keepdim=True)) > floor)
    return z, floor


def inverse_root(square: Tensor, floor: Tensor | None = None) -> Tensor:
    """1 / sqrt(square), or 0 where ``square`` is not above ``floor`` and the smallest normal number."""
    least = torch.finfo(square.dtype).tiny
    alive = square > (least if floor is None else floor.clamp_min(least))
    return torch.where(alive, square.clamp_min(least).rsqrt(), 0)


def product_with_itself(x: Tensor) -> Tensor:
    """Batched ``x x'`` of ``(V, M, K)``: symmetric ``(V, M, M)``.

    On the CPU a large product is done as four panels of the upper triangle and mirrored, 5/8 of the work.
    """
    m = x.shape[1]
    if x.device.type != "cpu" or m < 512:
        return x @ x.transpose(1, 2)
    result = x.new_empty(x.shape[0], m, m)
    for start, end in pairwise(m * i // 4 for i in range(5)):
        panel = x[:, start:end] @ x[:, start:].transpose(1, 2)
        result[:, start:end, start:] = panel
        result[:, end:, start:end] = panel[:, :, end - start :].transpose(1, 2)
    return result


def square_norm(x: Tensor) -> Tensor:
    """Squared Frobenius norm of each ``(M, M)`` of ``(V, M, M)``.

    Sums of squares as (x * x).sum(), which is faster and more exact here than ``torch.linalg.vector_norm``.
    """
    return torch.stack([(part * part).sum(dim=(1, 2)) for part in (x[..., s] for s in column_blocks(x))]).sum(0)


def column_blocks(z_VND: Tensor) -> list[slice]:
    """Slices of the columns that make pieces of a few MiB on the CPU, for passes that then stay in the cache.

    One slice elsewhere, and with many ranks, so that a pass needs one collective.
    """
    width = z_VND.shape[2]
    if z_VND.device.type != "cpu" or dist.world_size() > 1:
        return [slice(0, width)]
    column = z_VND.shape[0] * z_VND.shape[1] * z_VND.element_size()
    step = max(64, CACHE // max(column, 1))
    return [slice(start, min(start + step, width)) for start in range(0, width, step)]


def covariance_spectrum(x_NF: Tensor) -> Tensor:
    """Eigenvalues of the covariance of the rows, descending, from the smaller of covariance and Gram matrix.

    ``min(N, F)`` float64 numbers; rounding that would make one negative is cut off.
    """
    eps = torch.finfo(x_NF.dtype).eps
    x_NF = x_NF.double()
    mean = x_NF.mean(0)
    x = x_NF - mean
    # A column that varies by no more than the rounding it came with is constant.
    x = x * ((x * x).mean(0) > (16 * eps * mean).square())
    n, width = x.shape
    matrix = (x.T @ x if n > width else x @ x.T) / n
    return torch.linalg.eigvalsh(matrix).flip(0).clamp_min(0)
