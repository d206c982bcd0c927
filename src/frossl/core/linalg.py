"""Linear algebra of objectives and metrics."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import pairwise
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from frossl.core import distributed
from frossl.core.gradient import apply, double_backward_by, readable, transformed
from frossl.core.types import UserError

P = ParamSpec("P")
T = TypeVar("T")
CACHE = 2 * 2**20
"""Bytes that fit in a processor's last-level cache."""


class NumericalError(UserError):
    """Numbers that are not finite, or differ too much in size to compute with."""


def decompose(of: Callable[[Tensor], T], x: Tensor) -> T:
    """``of(x)`` for a decomposition of :mod:`torch.linalg`, in float64 if it fails in float32.

    LAPACK's eigenvalues in float32 do not converge if most columns are zero, as of features that collapsed.

    Raises:
        NumericalError: ``x`` is not finite, or the decomposition does not converge or does not exist.
    """
    found = None
    if bool(torch.isfinite(x).all()):
        found = _attempt(of, x)
        if found is None and x.dtype == torch.float32:
            found = _in_type(_attempt(of, x.double()), x.dtype)
    if found is None:
        raise NumericalError(
            f"a matrix {tuple(x.shape)} made of features cannot be decomposed: they are not finite, or too far apart. "
            "Look at what the encoder gives; a lower learning rate or --precision 32 keeps features in range"
        )
    return found


def _in_type(found: Any, dtype: torch.dtype) -> Any:
    """A tensor, or torch's tuple of several, in ``dtype``."""
    if found is None or isinstance(found, Tensor):
        return found if found is None else found.to(dtype)
    return type(found)([part.to(dtype) for part in found])


def require_finite(x: Tensor, what: str) -> None:
    """Raises NumericalError where numbers, or the sum of their squares, are not finite."""
    if not bool(torch.isfinite(torch.linalg.vector_norm(x))):
        raise NumericalError(f"{what}, or their squares, are not finite: look at what the encoder gives")


def _attempt(of: Callable[[Tensor], T], x: Tensor) -> T | None:
    try:
        return of(x)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        return None


def or_nothing(measure: Callable[P, dict[str, T]]) -> Callable[P, dict[str, T]]:
    """Decorates ``measure`` to return no figures after a :class:`NumericalError`."""

    @functools.wraps(measure)
    def measured(*args: P.args, **kwargs: P.kwargs) -> dict[str, T]:
        try:
            return measure(*args, **kwargs)
        except NumericalError:
            return {}

    return measured


def centre_columns(z_VND: Tensor, n: int, keep_noise: bool) -> tuple[Tensor, Tensor]:
    """``z`` minus its column means over the (global) batch of ``n``, and the squared norm ``(V, 1, D)`` of rounding.

    A constant column leaves only the rounding of its mean, which normalisation would scale to unit norm. Callers treat
    columns below the noise as zero; without ``keep_noise`` they are set to zero here.
    """
    mean = distributed.sum_over_ranks(z_VND.sum(1, keepdim=True)) / n
    z = z_VND - mean
    floor = rounding_noise(mean, n)
    if not keep_noise:
        z = z * (distributed.sum_over_ranks((z * z).sum(1, keepdim=True)) > floor)
    return z, floor


def rounding_noise(mean: Tensor, n: int, eps: float | None = None) -> Tensor:
    """Squared norm below which ``n`` numbers of precision ``eps`` minus their ``mean`` are only rounding."""
    return n * (16 * (eps or torch.finfo(mean.dtype).eps) * mean.detach()).square()


def inverse_root(square: Tensor, floor: Tensor | None = None) -> Tensor:
    """1 / sqrt(square), 0 where ``square`` is not above ``floor`` and the smallest normal number, NaN if infinite."""
    least = torch.finfo(square.dtype).tiny
    lowest = least if floor is None else floor.clamp_min(least)
    root = square.clamp_min(lowest).rsqrt().masked_fill(square <= lowest, 0)  # type: ignore[arg-type]
    # An overflow would count as a vector that is zero, and the rest would go on without it.
    return root.masked_fill(square.isinf(), torch.nan)


def product_with_itself(x: Tensor) -> Tensor:
    """Batched ``x x'`` of ``(V, M, K)``: symmetric ``(V, M, M)``.

    On the CPU a large product is done as panels of the upper triangle and mirrored: two are 3/4 of the work, four 5/8.
    """
    m = x.shape[1]
    if x.device.type != "cpu" or m < 256 or transformed():
        return x @ x.transpose(1, 2)
    panels = 2 if m < 512 else 4
    result = x.new_empty(x.shape[0], m, m)
    for start, end in pairwise(m * i // panels for i in range(panels + 1)):
        panel = x[:, start:end] @ x[:, start:].transpose(1, 2)
        result[:, start:end, start:] = panel
        result[:, end:, start:end] = panel[:, :, end - start :].transpose(1, 2)
    return result


def square_norm(x: Tensor) -> Tensor:
    """Squared Frobenius norm of each ``(M, M)`` of ``(V, M, M)``.

    Sums of squares as (x * x).sum(), which is faster and more exact here than ``torch.linalg.vector_norm``.
    """
    parts = [(part * part).sum(dim=(1, 2)) for part in x.split(block_width(x), -1)]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def block_width(z_VND: Tensor) -> int:
    """The number of columns in :data:`CACHE` bytes, for passes over ``z.split`` that stay in the cache of a CPU.

    All columns on other devices, and with several ranks, so that a pass needs one collective.
    """
    width = z_VND.shape[2]
    if z_VND.device.type != "cpu" or distributed.world_size() > 1:
        return width
    column = z_VND.shape[0] * z_VND.shape[1] * z_VND.element_size()
    return min(width, max(64, CACHE // max(column, 1)))


def centred(x_NF: Tensor, eps: float | None = None) -> Tensor:
    """Rows minus their mean, in float64; columns that vary by no more than rounding become zero.

    ``eps`` is the relative precision of the numbers, by default that of their type.
    """
    eps = eps or torch.finfo(x_NF.dtype).eps
    x_NF = x_NF.double()
    mean = x_NF.mean(0)
    x = x_NF - mean
    return x * ((x * x).sum(0) > rounding_noise(mean, len(x), eps))


def eigenvalues(matrix: Tensor) -> Tensor:
    """Eigenvalues of a symmetric positive semi-definite matrix, descending; negative ones, of rounding, become 0.

    Raises:
        NumericalError: as :func:`decompose`.
    """
    return decompose(torch.linalg.eigvalsh, matrix).flip(0).clamp_min(0)


def second_moment_spectrum(x_NF: Tensor) -> Tensor:
    """Eigenvalues of x'x / N, descending, from the smaller of it and the Gram matrix: ``min(N, F)`` in float64."""
    x = x_NF.double()
    n, width = x.shape
    return eigenvalues((x.T @ x if n > width else x @ x.T) / n)


def covariance_spectrum(x_NF: Tensor) -> Tensor:
    """Eigenvalues of the covariance of the rows, descending, from the smaller of covariance and Gram matrix.

    ``min(N, F)`` float64 numbers; constant columns count as exactly constant (:func:`centred`).
    """
    return second_moment_spectrum(centred(x_NF))


def unit_rows(x: Tensor) -> Tensor:
    """Rows (last axis) divided by their L2 norm; a row shorter than 1e-12 becomes zero and gets no gradient."""
    square = (x * x).sum(-1, keepdim=True)
    return x * inverse_root(square, torch.full_like(square, 1e-24))


def pair_products(x: Tensor, stop_gradient: bool = False) -> Tensor:
    """Mean over pairs of views u < v of the dot products along the last axis: ``(V, ..., D)`` to ``(...)``.

    Linear in V: each view is multiplied with the sum of those after it, which ``stop_gradient`` makes constants.
    """
    later = x[1:].flip(0).cumsum(0).flip(0)
    later = later.detach() if stop_gradient else later
    return (x[:-1] * later).sum(-1).sum(0) * (2 / (len(x) * (len(x) - 1)))


def pair_distance(x: Tensor) -> Tensor:
    """Mean over pairs of views u < v of the mean of ``(x_u - x_v) ** 2``: ``(V, ...)`` to a scalar, linear in V."""
    difference = x - x.mean(0)
    return (difference * difference).mean() * (2 * len(x) / (len(x) - 1))


def moment_matrix(x: Tensor) -> Tensor:
    """Batched ``x x'`` of ``(V, M, K)`` as :func:`product_with_itself`, with one matrix product in the backward."""
    return apply(_Moment, product_with_itself, x)


def smaller_moment(x: Tensor) -> Tensor:
    """The smaller of ``x x'`` and ``x' x`` of each ``(N, D)`` of ``(V, N, D)``: their spectra differ only in zeros."""
    return moment_matrix(x if x.shape[1] <= x.shape[2] else x.transpose(1, 2))


class _Moment(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return product_with_itself(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            return (grad + grad.transpose(1, 2)) @ x


def squared_singular_values(x: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values of each ``(N, D)`` of ``(V, N, D)``, and which of them are more than rounding.

    They are ``(V, min(N, D))``, float64 and ascending. The gradient of a smooth function of them is finite, also where
    they repeat. They are NaN if the decomposition fails.
    """
    # Eigenvalues of the smaller moment matrix in float64. Forward and backward of the nuclear norm of 256 x 512 in
    # float32, on one core: 14 ms, against 17 ms by the singular value decomposition, and more exact (gradient to 3e-8
    # against 1e-6). In float32 they take 7 ms, but where N is about D squaring the condition costs all accuracy of
    # the small ones: at 1024 x 1024 the gradient is 12 % off.
    matrix = smaller_moment(x.double())
    finite = torch.isfinite(matrix).all()
    values = _attempt(torch.linalg.eigvalsh, torch.where(finite, matrix, 0))
    if values is None:
        values, finite = matrix.diagonal(dim1=-2, dim2=-1), torch.zeros_like(finite)
    values = torch.where(finite, values, torch.nan)
    floor = values.detach()[:, -1:] * (values.shape[1] * torch.finfo(values.dtype).eps)
    return values, ~(values <= floor)


def nuclear_norm(x: Tensor) -> Tensor:
    """Sum of the singular values of each ``(N, D)`` of ``(V, N, D)``, over all V.

    Takes eigenvalues of the smaller moment matrix, or singular values in the precision of ``x`` where eigenvalues are
    not faster. The gradient is finite, also where values repeat or are zero.
    """
    small, large = sorted(x.shape[1:])
    if large < 2 * small and not transformed() and bool(torch.isfinite(x).all()):
        values = _attempt(torch.linalg.svdvals, x)
        if values is not None:
            return values.sum()
    values, alive = squared_singular_values(x)
    return (torch.where(alive, values, 1).sqrt() * alive).sum()


def cholesky(a: Tensor, singular: str, floor: Tensor | float = 0.0) -> Tensor:
    """Lower Cholesky factors of symmetric ``(..., D, D)``; squared pivots must be above ``floor``.

    Raises:
        UserError: on the CPU, a matrix is not positive definite: the message is ``singular``. On an accelerator, and
            compiled or transformed, the factor is NaN instead, so that nothing waits for a value. Numbers that are not
            finite give NaN everywhere.
    """
    factor, info = torch.linalg.cholesky_ex(a)
    pivots = factor.detach().diagonal(dim1=-2, dim2=-1)
    definite = (info == 0) & (pivots * pivots > floor).all(-1)
    if readable(a) and not bool(definite.all()) and bool(torch.isfinite(a).all()):
        raise UserError(singular)
    return torch.where(definite[..., None, None], factor, torch.nan)


def log_determinant(a: Tensor, singular: str) -> Tensor:
    """Log-determinant of symmetric positive definite ``(..., D, D)``, by Cholesky; its gradient inverts the factor.

    Raises:
        UserError: as :func:`cholesky`.
    """
    return apply(_LogDeterminant, _log_determinant, a, singular)


def _log_determinant(a: Tensor, singular: str) -> Tensor:
    return 2 * cholesky(a, singular).diagonal(dim1=-2, dim2=-1).log().sum(-1)


class _LogDeterminant(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, singular: str) -> Tensor:
        factor = cholesky(a, singular)
        ctx.save_for_backward(a, factor)
        ctx.rest = (singular,)
        return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @staticmethod
    @double_backward_by(_log_determinant)
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return torch.cholesky_inverse(ctx.saved_tensors[1]) * grad[..., None, None], None
