"""Checks and sums for objectives that compare views with detached targets, or with labels, of the same images."""

from __future__ import annotations

from torch import Tensor

from frossl.core.axes import Views, as_tensor
from frossl.core.distributed import gather
from frossl.core.types import UserError
from frossl.losses.base import upcast


def detached_targets(target: Views, views_VND: Tensor) -> Tensor:
    """Targets ``(G, N, D)`` of the first G of V views, of the global batch, without gradient, float32 or wider.

    Raises:
        UserError: they are no tensors, or their shape does not fit that of ``views_VND``.
    """
    x = as_tensor(target).detach()
    x_GND = gather(upcast(x), dim=1) if x.ndim == 3 else x
    if x_GND.ndim != 3 or not 1 <= len(x_GND) <= len(views_VND) or x_GND.shape[1:] != views_VND.shape[1:]:
        raise UserError(
            f"targets must be (G, N, D) for the first G of the views {tuple(views_VND.shape)}, got {tuple(x_GND.shape)}"
        )
    return x_GND


def class_numbers(labels: Tensor, count: int) -> Tensor:
    """Labels ``(N,)`` of the ``count`` images of the global batch.

    Raises:
        UserError: they are not integers, one per image.
    """
    labels_N = gather(labels)
    if labels_N.shape != (count,) or labels_N.is_floating_point() or labels_N.is_complex():
        raise UserError(
            f"labels must be {count} integers, one per image and the same for all its views; "
            f"got {labels.dtype} of shape {tuple(labels_N.shape)}"
        )
    return labels_N.long()


def across_views(x_VND: Tensor, target_GND: Tensor) -> Tensor:
    """Inner product of a view's row with the target row of another view of that image: mean over both and images.

    All G (V - 1) pairs of a view and another view's target at a cost linear in V: the product of the sums over views
    has them all, and a view's product with its own target is taken off.
    """
    views, (targets, images, _) = len(x_VND), target_GND.shape
    every = (x_VND.sum(0) * target_GND.sum(0)).sum()
    own = (x_VND[:targets] * target_GND).sum()
    return (every - own) / (targets * (views - 1) * images)
