"""LeJEPA: random projections of the embeddings are standard normal, and views agree with their mean.

Balestriero, LeCun, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics", arXiv 2511.08544,
its sketched isotropic Gaussian regularisation with the test of Epps and Pulley. Numbers as in the authors' minimal
example.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from frossl.core.axes import Views
from frossl.core.gradient import apply, double_backward_by
from frossl.core.linalg import unit_rows
from frossl.core.types import Loss, UserError
from frossl.losses.base import embeddings, make_loss, register_loss


@register_loss
def sigreg(
    z: Views, directions: Tensor, *, weight: float = 0.02, large: int | None = None, knots: int = 17, reach: float = 3.0
) -> Loss:
    """LeJEPA of V views, natively for many.

    For each view, the projections x_n on each direction give the Epps-Pulley statistic::

        N * integral over |t| <= reach of | mean_n exp(i t x_n) - exp(-t^2 / 2) |^2 exp(-t^2 / 2) dt

    SIGReg is its mean over views and directions. With the mean of the first ``large`` views as the centre::

        total = weight * SIGReg + (1 - weight) * mean over V, N, D of (z_v - centre)^2

    Args:
        z: ``(V, N, D)`` projections or V tensors ``(N, D)``, V >= 2.
        directions: ``(D, M)``, constant; columns are divided by their norm. Drawn anew at each step, the same on all
            ranks.
        weight: lambda of the paper.
        large: how many views, the first, make the centre; all if None.
        knots: points of the trapezoidal rule on [0, reach], the other half of the integral being the same.
        reach: where the integral ends.

    Returns:
        Loss: terms ``gaussianity`` and ``prediction``.

    Raises:
        UserError: wrong shapes or numbers.

    Cost: linear in V; one complex multiplication per knot forward and one backward for each of V N M projections, with
    nothing kept for each knot.
    """
    z_VND = embeddings(z)
    views, n, width = z_VND.shape
    large = views if large is None else large
    if directions.ndim != 2 or len(directions) != width or directions.shape[1] < 1:
        raise UserError(f"SIGReg: directions must be ({width}, M), got {tuple(directions.shape)}")
    if not 1 <= large <= views:
        raise UserError(f"SIGReg: large must be from 1 to the number of views {views}, got {large}")
    if knots < 2 or reach <= 0:
        raise UserError(f"SIGReg: at least 2 knots and a reach above 0 are needed, got {knots} and {reach}")
    projections = z_VND @ unit_rows(directions.detach().to(z_VND).T).T
    statistic = n * apply(_EppsPulley, _epps_pulley, projections, knots, reach).mean()
    prediction = (z_VND - z_VND[:large].mean(0)).square().mean()
    return make_loss(gaussianity=weight * statistic, prediction=(1 - weight) * prediction)


def _knots(knots: int, reach: float, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points above 0, exp(-t^2 / 2) at them, and their weights in the integral over both signs."""
    step = reach / (knots - 1)
    t = step * torch.arange(1, knots, dtype=like.dtype, device=like.device)
    normal = (-t * t / 2).exp()
    weight = 2 * step * normal
    weight[-1] /= 2
    return t, normal, weight


def _epps_pulley(x_VNM: Tensor, knots: int, reach: float) -> Tensor:
    """The integral of :func:`sigreg` for ``(V, N, M)`` projections: ``(V, M)``."""
    t, normal, weight = _knots(knots, reach, x_VNM)
    angle_VNMK = x_VNM[..., None] * t
    real_VMK, imaginary_VMK = angle_VNMK.cos().mean(1) - normal, angle_VNMK.sin().mean(1)
    return (real_VMK.square() + imaginary_VMK.square()) @ weight


class _EppsPulley(torch.autograd.Function):
    """:func:`_epps_pulley` without anything kept for each knot.

    exp(i t x) at knot k is the k-th power of that at the first, so only powers are taken; at t = 0 the integrand is 0.
    """

    @staticmethod
    def forward(ctx: Any, x_VNM: Tensor, knots: int, reach: float) -> Tensor:
        t, normal, weight = _knots(knots, reach, x_VNM)
        base = torch.polar(torch.ones_like(x_VNM), reach / (knots - 1) * x_VNM)
        power, means = base.clone(), [base.mean(1)]
        for _ in range(knots - 2):
            means.append(power.mul_(base).mean(1))
        error_KVM = torch.stack(means) - normal[:, None, None]
        ctx.rest = knots, reach
        ctx.save_for_backward(x_VNM, base, error_KVM * (2 / x_VNM.shape[1] * weight * t)[:, None, None])
        return torch.einsum("k,kvm->vm", weight, error_KVM.real.square() + error_KVM.imag.square())

    @staticmethod
    @double_backward_by(_epps_pulley)
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        _, base, slope_KVM = ctx.saved_tensors
        # The gradient is the imaginary part of sum_k conj(-slope_k) exp(i k theta), here by Horner's rule.
        total = torch.zeros_like(base)
        for slope in slope_KVM.conj().resolve_conj().flip(0)[:, :, None]:
            total.sub_(slope).mul_(base)
        return total.imag * grad[:, None], None, None
