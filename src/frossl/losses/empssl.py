"""EMP-SSL: every patch agrees with the image's mean, and a large coding rate.

Tong et al., "EMP-SSL: Towards Self-Supervised Learning in One Training Epoch", arXiv 2304.03977.
"""

from __future__ import annotations

import torch

from frossl.core.axes import Views
from frossl.core.linalg import log_determinant, smaller_moment, unit_rows
from frossl.core.types import Loss, UserError
from frossl.losses.base import embeddings, make_loss, register_loss


@register_loss
def empssl(
    z: Views, *, invariance_weight: float = 200.0, coding_rate_weight: float = 1.0, distortion: float = 0.2
) -> Loss:
    """Pulls many crops of an image to their mean while the coding rate of each is high.

    EMP-SSL of V views (there: patches), natively for many. With unit rows z_v and their mean over views, zbar::

        total = - invariance_weight * mean over V, N of cos(z_v, zbar)
                - coding_rate_weight * mean over V of 1/2 logdet(I + D / (N distortion) z_v' z_v)

    Args:
        z: ``(V, N, D)`` projections or V tensors ``(N, D)``, V >= 2; published with 20 to 200.
        invariance_weight: weight of the cosine with the mean.
        coding_rate_weight: weight of the coding rate.
        distortion: how coarsely the coding rate counts; the paper writes it as a square; the public code divides by 0.2
            itself, which is kept here.

    Returns:
        Loss: terms ``invariance`` and ``coding_rate``.

    Raises:
        UserError: wrong shapes, or a ``distortion`` that is not positive.

    Cost: linear in V, with a factorisation of N x N or D x D, whichever is smaller, per view: both have the same
    determinant.
    """
    if distortion <= 0:
        raise UserError(f"EMP-SSL: the distortion must be above 0, got {distortion}")
    z_VND = unit_rows(embeddings(z))
    n, width = z_VND.shape[1:]
    mean = z_VND.mean(0)
    similarity = (mean * unit_rows(mean)).sum(-1).mean()  # the mean over views of cos(z_v, zbar) is the norm of zbar
    matrix = smaller_moment(z_VND) * (width / (n * distortion))
    rate = log_determinant(
        matrix + torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device),
        "EMP-SSL: the coding rate is lost in rounding; use a larger distortion",
    )
    return make_loss(invariance=-invariance_weight * similarity, coding_rate=-coding_rate_weight / 2 * rate.mean())
