"""W-MSE: views agree after each was whitened.

Ermolov et al., "Whitening for Self-Supervised Representation Learning", arXiv 2007.06346.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from frossl.core.axes import Views
from frossl.core.gradient import apply, double_backward_by
from frossl.core.linalg import cholesky, pair_products, unit_rows
from frossl.core.types import Loss, UserError
from frossl.losses.base import embeddings, make_loss, register_loss


@register_loss
def wmse(
    z: Views,
    *,
    size: int | None = None,
    permutations: Tensor | None = None,
    epsilon: float = 0.0,
    stop_gradient: bool = False,
) -> Loss:
    """W-MSE of V views: mean over pairs of views of 2 - 2 cos of whitened samples.

    The batch is permuted, the same for all views, and cut into sub-batches. In each, samples are centred and
    multiplied with the inverse of the Cholesky factor of their (unbiased) covariance. The loss is the mean over
    permutations, sub-batches, pairs of views and samples.

    Args:
        z: ``(V, N, D)`` projections or V tensors ``(N, D)``, V >= 2.
        size: samples in a sub-batch, all N if None; what remains of N is left out. It must exceed D;
            published runs have 2 D.
        permutations: ``(iterations, N)`` integers, each row an order of the (global) batch; as it comes if None.
        epsilon: weight of the identity in the covariance.
        stop_gradient: the later view of each pair is a constant, as in the code published with FroSSL; in the
            paper, and by default here, it is not.

    Returns:
        Loss: term ``similarity``.

    Raises:
        UserError: wrong shapes; ``size`` too large or too small; on the CPU, a covariance without full rank.

    Whitening is done in float64, as covariances here may be close to singular. Cost: linear in V, with or without
    ``stop_gradient``.
    """
    z_VND = embeddings(z)
    n, width = z_VND.shape[1:]
    size = n if size is None else size
    smallest = 2 if epsilon > 0 else width + 1
    if not smallest <= size <= n:
        raise UserError(
            f"W-MSE: sub-batches of {size} images in {width} dimensions from a batch of {n}: the size must be at "
            f"least {smallest} and at most the batch. Use a narrower projector, a larger batch, or an epsilon above 0, "
            "for which 2 images are enough."
        )
    if permutations is None:
        permutations = torch.arange(n, device=z_VND.device)[None]
    elif permutations.ndim != 2 or permutations.shape[1] != n:
        raise UserError(f"W-MSE: permutations must be (iterations, {n}), got {tuple(permutations.shape)}")
    if size == n:  # whose order does not matter
        permutations = permutations[:1]
    taken = permutations[:, : n // size * size]
    batches = z_VND.index_select(1, taken.flatten()).unflatten(1, (-1, size))
    white: Tensor = apply(_Whitened, _whiten, batches, epsilon)
    return make_loss(similarity=2 - 2 * pair_products(unit_rows(white), stop_gradient).mean())


def _whiten(z: Tensor, epsilon: float) -> Tensor:
    """Sub-batches ``(..., size, D)`` with zero mean and unit covariance, computed in float64."""
    return _with_factor(z, epsilon)[0]


def _with_factor(z: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    size, width = z.shape[-2:]
    x = z.double()
    mean = x.mean(-2, keepdim=True)
    x = x - mean
    weight = (1 - epsilon) / (size - 1)
    covariance = x.mT @ x * weight + epsilon * torch.eye(width, dtype=x.dtype, device=x.device)
    # Rounding of the mean, and of a column that the others determine, must not be taken for variance.
    eps = torch.finfo(x.dtype).eps
    floor = width * eps * covariance.diagonal(dim1=-2, dim2=-1) + (16 * eps * mean.squeeze(-2)).square()
    factor = cholesky(
        covariance,
        f"W-MSE: {size} projections of {width} dimensions span fewer dimensions than that, so their covariance "
        "cannot be inverted. Use larger sub-batches, a narrower projector, or an epsilon above 0. If it happens "
        "late in training, the projections are collapsing.",
        floor,
    )
    return torch.linalg.solve_triangular(factor.mT, x, upper=True, left=False).to(z.dtype), factor


class _Whitened(torch.autograd.Function):
    """:func:`_whiten`, whose backward does not go through the factorisation.

    With Y = X L^-T, the backward of Cholesky's factorisation C = L L' comes down to two products and one solution:
    the gradient of X is (G - 2 (1 - epsilon) / (size - 1) Y S) L^-1, where S is the symmetric part of the lower
    triangle of G' Y, its diagonal halved.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, epsilon: float) -> Tensor:
        y, factor = _with_factor(z, epsilon)
        ctx.save_for_backward(z, y, factor)
        ctx.rest = (epsilon,)
        return y

    @staticmethod
    @double_backward_by(_whiten)
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        _, y, factor = ctx.saved_tensors
        weight = (1 - ctx.rest[0]) / (y.shape[-2] - 1)
        with torch.autocast(grad.device.type, enabled=False):
            lower = (grad.mT @ y).tril()
            lower.diagonal(dim1=-2, dim2=-1).div_(2)
            g = grad - y @ ((lower + lower.mT) * weight)
        g = torch.linalg.solve_triangular(factor, g.double(), upper=False, left=False)
        return (g - g.mean(-2, keepdim=True)).to(grad.dtype), None
