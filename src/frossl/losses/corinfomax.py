"""CorInfoMax: log-determinant of a running covariance, and views that agree.

Ozsoy et al., "Self-Supervised Learning with an Information Maximization Criterion", arXiv 2209.07999.
"""

from __future__ import annotations

import torch
from torch import Tensor

from frossl.core.axes import Views
from frossl.core.linalg import log_determinant, moment_matrix, pair_distance, unit_rows
from frossl.core.types import Loss, UserError
from frossl.losses.base import embeddings, make_loss, register_loss


@register_loss
def corinfomax(
    z: Views,
    mean: Tensor,
    covariance: Tensor,
    *,
    forgetting: float = 0.01,
    epsilon: float = 1e-6,
    invariance_weight: float = 500.0,
) -> Loss:
    """CorInfoMax of V views: mean over pairs of views of the two-view loss.

    With unit rows z_v, m_v = f mean_v + (1 - f) batch mean and R_v = f covariance_v + (1 - f) (z_v - m_v)' (z_v - m_v)
    / N, for each pair of views::

        - [logdet(R_u + epsilon I) + logdet(R_v + epsilon I)] / D + invariance_weight * mean over N, D of (z_u - z_v)^2

    Args:
        z: ``(V, N, D)`` projections or V tensors ``(N, D)``, V >= 2.
        mean: ``(V, D)`` running means so far, constant.
        covariance: ``(V, D, D)`` running covariances so far, constant, positive semi-definite.
        forgetting: f, the weight of what was so far; the default all but forgets it, as the public code does.
        epsilon: keeps the determinant above zero while N < D.
        invariance_weight: alpha; published 250 to 1000.

    Returns:
        Loss: terms ``log_determinant`` and ``invariance``; state ``mean`` and ``covariance``, float64.

    Raises:
        UserError: wrong shapes; on the CPU, a covariance that is not positive definite with ``epsilon`` added.

    Covariances and determinants are float64. The public code keeps its state outside of checkpoints. Cost: linear in
    V, with a D x D factorisation per view.
    """
    z_VND = unit_rows(embeddings(z))
    views, n, width = z_VND.shape
    if mean.shape != (views, width) or covariance.shape != (views, width, width):
        raise UserError(
            f"CorInfoMax: {views} views of width {width} need a mean ({views}, {width}) and a covariance "
            f"({views}, {width}, {width}); got {tuple(mean.shape)} and {tuple(covariance.shape)}"
        )
    x = z_VND.double()
    mean = torch.lerp(x.mean(1), mean.detach().double(), forgetting)
    x = x - mean[:, None]
    covariance = torch.lerp(moment_matrix(x.mT) / n, covariance.detach().double(), forgetting)
    determinant = log_determinant(
        covariance + epsilon * torch.eye(width, dtype=x.dtype, device=x.device),
        "CorInfoMax: a running covariance is not positive definite; use a larger epsilon",
    )
    return make_loss(
        {"mean": mean.detach(), "covariance": covariance.detach()},
        log_determinant=-2 / width * determinant.mean().to(z_VND.dtype),
        invariance=invariance_weight * pair_distance(z_VND),
    )
