"""EMP-FroSSL: the many small crops and the head of EMP-SSL (arXiv 2304.03977), the objective of FroSSL (2310.02903)."""

from __future__ import annotations

from torch import Tensor

from frossl.core.linalg import unit_rows
from frossl.core.types import Loss
from frossl.losses.base import upcast
from frossl.losses.frossl import ViewScaling, frossl
from frossl.methods.of_loss import add_loss


def emp_frossl(
    z_VND: Tensor, *, invariance_weight: float = 1.0, view_scaling: ViewScaling = "unbiased", centre: bool = True
) -> Loss:
    """FroSSL for many small crops of each image: samples are scaled to unit length before its objective.

    The public reference scales invariance by "pairs", which with 20 to 200 crops outweighs the entropy 19 to 199 times
    as much as with two views; the default here keeps the balance of two views, and "pairs" warns.

    Args:
        z_VND: ``(V, N, D)`` projections.
        invariance_weight: weight w of the distance to the mean view
        view_scaling: how w scales with the number of views V: unbiased V/(V-1), pairs V (public code), mean 1
        centre: subtract each view's mean over the batch first; --no-centre is the public code
    """
    unit_VND = unit_rows(upcast(z_VND))
    return frossl(unit_VND, invariance_weight=invariance_weight, view_scaling=view_scaling, centre=centre)


add_loss("emp_frossl", emp_frossl, "1024-bn-relu-512", "public code: 4096-bn-relu-512")
