"""Barlow Twins: the cross-correlation of two views is the identity.

Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", arXiv 2103.03230, equations 1 and 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from frossl.core.axes import Views
from frossl.core.linalg import inverse_root, moment_matrix, pair_products, rounding_noise
from frossl.core.types import Loss
from frossl.losses.base import embeddings, make_loss, register_loss


@register_loss
def barlow_twins(z: Views, *, off_diagonal_weight: float = 5e-3, scale: float = 1.0, epsilon: float = 1e-5) -> Loss:
    """Makes the cross-correlation of two views' projections the identity.

    Barlow Twins of V views is the mean over pairs of views of the two-view loss. With columns
    standardised over the batch (biased variance plus ``epsilon``) and C_uv = z_u' z_v / N::

        total = mean over u < v of  scale * [ sum_i (1 - C_uv,ii)^2  +  off_diagonal_weight * sum_{i != j} C_uv,ij^2 ]

    Args:
        z: ``(V, N, D)`` projections or V tensors ``(N, D)``, V >= 2.
        off_diagonal_weight: weight of the correlations of different columns (paper: 0.005, its code 0.0051).
        scale: factor on the loss, which is about D at the start (paper's code: 0.024, later copies 0.1); matters where
            the optimiser does not normalise gradients.
        epsilon: added to the variances: that of the batch norm in the paper's code; the paper divides by the deviation.

    Returns:
        Loss: terms ``on_diagonal`` and ``off_diagonal``.

    Raises:
        UserError: wrong shapes.

    A column that does not vary is zero and adds 1 to the sum over the diagonal. Cost: linear in V, with V products of
    N x N, where 2 N <= (V - 1) D; else a product of D x D per pair of views, one view with all later ones at a time.
    Public code differs in statistics: per rank in some, of the global batch in the paper's and here.
    """
    z_VND = embeddings(z)
    n = z_VND.shape[1]
    mean = z_VND.mean(1, keepdim=True)
    z_VND = z_VND - mean
    square = (z_VND * z_VND).sum(1, keepdim=True)
    varies = ~(square <= rounding_noise(mean, n))
    z_VND = z_VND * (inverse_root(square + epsilon * n) * varies)  # now C_uv = z_u' z_v
    diagonal_PD = torch.cat([(z_VND[v] * z_VND[v + 1 :]).sum(1) for v in range(len(z_VND) - 1)])
    on_diagonal = (1 - diagonal_PD).square().sum(1).mean()
    off_diagonal = _square_norm(z_VND) - diagonal_PD.square().sum(1).mean()
    return make_loss(on_diagonal=scale * on_diagonal, off_diagonal=scale * off_diagonal_weight * off_diagonal)


def _square_norm(z_VND: Tensor) -> Tensor:
    """Mean over pairs of views of ||z_u' z_v||_F^2, which is also the dot product of z_u z_u' and z_v z_v'."""
    views, n, width = z_VND.shape
    if 2 * n <= (views - 1) * width:
        return pair_products(moment_matrix(z_VND).flatten(1))
    squares = [(z_VND[v].T @ z_VND[v + 1 :]).square().sum() for v in range(views - 1)]
    return torch.stack(squares).sum() * (2 / (views * (views - 1)))
