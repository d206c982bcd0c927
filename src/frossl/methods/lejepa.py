"""LeJEPA (arXiv 2511.08544): the sketched isotropic Gaussian regularisation along directions drawn at each step."""

from __future__ import annotations

import torch
from torch import Tensor

from frossl.core.distributed import broadcast
from frossl.core.types import Loss
from frossl.losses.sigreg import sigreg
from frossl.methods.of_loss import add_loss


def lejepa(z_VND: Tensor, large: int, *, weight: float = 0.02, directions: int = 256) -> Loss:
    """Pulls views to the mean of the large ones while their distribution is a standard normal.

    Args:
        z_VND: ``(V, N, D)`` projections.
        large: how many views, the first, are large.
        weight: weight of the distance from a standard normal; that of the prediction is 1 minus this
        directions: random directions, drawn at each step, along which the distribution is tested
    """
    drawn = broadcast(torch.randn(z_VND.shape[2], directions, device=z_VND.device))
    return sigreg(z_VND, drawn, weight=weight, large=large)


add_loss("lejepa", lejepa, "1024-bn-relu-1024-bn-relu-64", "authors: 2048-bn-relu-2048-bn-relu-16")
