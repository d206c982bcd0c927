"""VICReg: views agree, every column varies, columns do not covary.

Bardes, Ponce, LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
arXiv 2105.04906, equations 1 to 6.
"""

from __future__ import annotations

from frossl.core.axes import Views
from frossl.core.linalg import moment_matrix, pair_distance, square_norm
from frossl.core.types import Loss, UserError
from frossl.losses.base import embeddings, make_loss, register_loss


@register_loss
def vicreg(
    z: Views,
    *,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    epsilon: float = 1e-4,
) -> Loss:
    """Pulls views together while every column of their projections varies and no two covary.

    VICReg of V views is the mean over pairs of views of the two-view loss. With unbiased
    variances and covariances over the batch, for each pair of views u, v::

        invariance_weight * mean over N, D of (z_u - z_v)^2
        + variance_weight * sum over u, v of mean_j max(0, 1 - sqrt(Var_j + epsilon))
        + covariance_weight * sum over u, v of sum_{i != j} Cov_ij^2 / D

    Args:
        z: ``(V, N, D)`` projections or V tensors ``(N, D)``, V >= 2, N >= 2.
        invariance_weight: weight of the squared distance of views (lambda).
        variance_weight: weight of the standard deviations below 1 (mu). The paper's code halves the sum over the two
            views: its 25 is 12.5 here, and 25 here is what the paper says.
        covariance_weight: weight of the squared covariances (nu).
        epsilon: keeps the root differentiable where a column does not vary.

    Returns:
        Loss: terms ``invariance``, ``variance`` and ``covariance``.

    Raises:
        UserError: wrong shapes, or a single image.

    The paper's equation 5 sums squared differences over columns; its code, and this, take their mean. Cost: linear in
    V, and of N x N or D x D, whichever is smaller: both have the same Frobenius norm. From the N x N side the diagonal
    is subtracted, which in float32 costs digits where few columns hold most of the variance.
    """
    z_VND = embeddings(z)
    n, width = z_VND.shape[1:]
    if n < 2:
        raise UserError("VICReg: the variance of a batch of one image is not defined; use a larger batch")
    centred = z_VND - z_VND.mean(1, keepdim=True)
    variance_VD = (centred * centred).sum(1) / (n - 1)
    shortfall = (1 - (variance_VD + epsilon).sqrt()).relu().mean(1)
    if n < width:
        off_diagonal = square_norm(moment_matrix(centred)) - (centred * centred).sum(1).square().sum(1)
    else:
        moment_VDD = moment_matrix(centred.transpose(1, 2))
        off_diagonal = square_norm(moment_VDD - moment_VDD.diagonal(dim1=1, dim2=2).diag_embed())
    covariance = off_diagonal / ((n - 1) ** 2 * width)
    return make_loss(
        invariance=invariance_weight * pair_distance(z_VND),
        variance=variance_weight * 2 * shortfall.mean(),
        covariance=covariance_weight * 2 * covariance.mean(),
    )
