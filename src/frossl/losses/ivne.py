"""I-VNE+: von Neumann entropy of each view's autocorrelation, and views that agree.

Kim et al., "VNE: An Effective Method for Improving Deep Representation by Manipulating Eigenvalue Distribution",
arXiv 2304.01434.
"""

from __future__ import annotations

import torch

from frossl.core.axes import Views
from frossl.core.linalg import pair_products, squared_singular_values, unit_rows
from frossl.core.types import Loss
from frossl.losses.base import embeddings, make_loss, register_loss


@register_loss
def ivne(z: Views, *, entropy_weight: float = 1.0, similarity_weight: float = 4.16) -> Loss:
    """Pulls views together while the entropy of each view's spectrum is high.

    I-VNE+ of V views is the mean over pairs of views of the two-view loss. With unit rows z_v and
    S_v = - sum_i lambda_i log lambda_i over the eigenvalues of z_v' z_v / N (which sum to 1), for each pair of views::

        - similarity_weight * mean cos(z_u, z_v)  -  entropy_weight * (S_u + S_v) / 2

    Args:
        z: ``(V, N, D)`` projections or V tensors ``(N, D)``, V >= 2.
        entropy_weight: weight of the von Neumann entropy, which lies in [0, log min(N, D)].
        similarity_weight: weight of the cosine of views; the published ratio of the two is 4.16.

    Returns:
        Loss: terms ``entropy`` and ``similarity``.

    Raises:
        UserError: wrong shapes.

    Public code is for two views and takes singular values in the precision of its input. Cost: linear in V, with the
    eigenvalues of a matrix of N x N or D x D, whichever is smaller, per view. Their logarithm would make an infinite
    gradient of rounding, so what is no more than that counts as zero.
    """
    z_VND = unit_rows(embeddings(z))
    values, alive = squared_singular_values(z_VND)
    eigenvalues = torch.where(alive, values / z_VND.shape[1], 1)  # 1 log 1 = 0, which is what 0 log 0 stands for
    entropy = torch.special.entr(eigenvalues).sum(1).mean().to(z_VND.dtype)
    return make_loss(entropy=-entropy_weight * entropy, similarity=-similarity_weight * pair_products(z_VND).mean())
