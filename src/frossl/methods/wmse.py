"""W-MSE (arXiv 2007.06346): whitening of sub-batches that are sampled at each step."""

from __future__ import annotations

import torch
from torch import Tensor

from frossl.core.distributed import broadcast, global_count
from frossl.core.types import Loss
from frossl.losses.wmse import wmse as whitened_mse
from frossl.methods.of_loss import add_loss


def wmse(
    z_VND: Tensor,
    *,
    sub_batch: int | None = None,
    iterations: int = 4,
    epsilon: float = 0.0,
    stop_gradient: bool = False,
) -> Loss:
    """Pulls views together after whitening them, so that they cannot collapse.

    Args:
        z_VND: ``(V, N, D)`` projections.
        sub_batch: images whitened together; twice the projection's width, at most the batch, if not given
        iterations: how many times a step cuts its batch into sub-batches, at random
        epsilon: weight of the identity in the covariance; above 0, fewer images than the projection is wide will do
        stop_gradient: treat the later view of each pair as a constant, as the code published with FroSSL does
    """
    images = global_count(z_VND.shape[1], z_VND)
    orders = torch.stack([torch.randperm(images, device=z_VND.device) for _ in range(iterations)])
    return whitened_mse(
        z_VND,
        size=min(2 * z_VND.shape[2], images) if sub_batch is None else sub_batch,
        permutations=broadcast(orders),
        epsilon=epsilon,
        stop_gradient=stop_gradient,
    )


add_loss("wmse", wmse, "1024-bn-relu-64", "narrower than a batch has images", float64=True)
