"""FroSSL: log-Frobenius norm of each view's moment matrix plus squared distance to the mean view.

Skean et al., "FroSSL: Frobenius Norm Minimization for Efficient Multiview Self-Supervised Learning",
arXiv 2310.02903, equations 3 (invariance) and 6 (regulariser).
"""

from __future__ import annotations

import warnings
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from frossl.core import distributed
from frossl.core.axes import Views, stack_views
from frossl.core.gradient import apply, double_backward_by, readable, transformed
from frossl.core.linalg import (
    block_width,
    centre_columns,
    inverse_root,
    product_with_itself,
    smaller_moment,
    square_norm,
)
from frossl.core.types import Loss, UserError
from frossl.losses.base import register_loss, upcast, without_autocast

ViewScaling = Literal["pairs", "mean", "unbiased"]
Normalise = Literal["batch", "sample"]
Kernel = Literal["linear", "gaussian"]
_CHOICES = {"view_scaling": ViewScaling, "normalise": Normalise, "kernel": Kernel}


@register_loss
def frossl(
    z: Views,
    *,
    invariance_weight: float | None = 1.0,
    view_scaling: ViewScaling = "unbiased",
    centre: bool = True,
    normalise: Normalise = "batch",
    log: bool = True,
    kernel: Kernel = "linear",
) -> Loss:
    """Projects every view and compares it with the mean view while keeping each view's spectrum flat.

    Exact, without an eigendecomposition and without a loop over views. With each column of Z_v divided by its L2 norm
    over the batch (Zh_v) and C_v = Zh_v' Zh_v::

        total = sum_v log || C_v / tr C_v ||_F^2  +  w * s(V) / N * sum_v || Zh_v - mean_v Zh ||_F^2

    The entropy term of a view lies in [-log min(N, D), 0]: 0 is a rank-one (collapsed) embedding and the
    lower end a flat spectrum; exp of its negative is an effective rank (participation ratio).

    Args:
        z: ``(V, N, D)`` projections or V tensors ``(N, D)``, V >= 2; any floating dtype. Statistics are
            computed in float32 (float64 for float64 input), also under autocast.
        invariance_weight: weight w of the distance to the mean view, which means something only together with
            view_scaling (paper: 1.4 for two views, pairs); None is 4 N / D, since the term grows as D / N.
        view_scaling: how w scales with the number of views V: unbiased V / (V - 1), pairs V, mean 1. With pairs, the
            public reference since August 2024, the weight grows with V and collapses many-view runs; mean is the
            reference of January 2024, with which the published 4- and 8-view runs were made.
        centre: subtract each view's column mean over the batch first. Without, it is the reference's multiview form,
            for which the constant direction, which needs no information from the input, is stationary with loss 0.
        normalise: batch divides columns by their norm over the batch, sample each sample by its own norm (the reference
            between January and August 2024).
        log: take the logarithm of the Frobenius norm; without, it is the ablation of the paper's first version.
        kernel: of the Gram matrix; gaussian is the reference's ablation, on columns scaled to norm sqrt(D) with sigma =
            sqrt(D / 2), N x N only, by plain autograd on one rank.

    Returns:
        Loss: scalar ``total`` and detached terms ``entropy`` and ``invariance``, already weighted, that sum to it.

    Raises:
        UserError: wrong shapes or options; on the CPU also when every column of a view is zero (or constant,
            if centred). On an accelerator, and compiled or transformed, that case gives NaN: no value is read.

    Differences from the public reference: it detaches the trace through a host synchronisation per view (equal in
    value and gradient, as the trace is constant); it adds a small constant to norms (here a column counts as zero if
    its squared norm underflows, and gives NaN if that overflows); its per-rank statistics are global here.

    >>> z = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(0))
    >>> loss = frossl(z)
    >>> bool(torch.isclose(loss.total, loss.terms["entropy"] + loss.terms["invariance"]))
    True
    """
    _check_options(view_scaling=view_scaling, normalise=normalise, kernel=kernel)
    z_VND = upcast(stack_views(z))
    options = z_VND, _weight(z_VND, invariance_weight, view_scaling), centre, normalise == "batch", log
    if kernel == "gaussian":
        total, entropy, invariance = _by_formula(*options, gaussian=True)
    else:
        total, entropy, invariance = apply(_FroSSL, _by_formula, *options)
    return Loss(total, {"entropy": entropy, "invariance": invariance})


def _weight(z_VND: Tensor, invariance_weight: float | None, view_scaling: ViewScaling) -> float:
    """w s(V); warns of what is known to collapse training."""
    views = len(z_VND)
    if view_scaling == "pairs" and views > 2 and not transformed():
        warnings.warn(
            f"view_scaling='pairs' with {views} views weighs invariance {views - 1} times as much per view as with "
            "2 views, which is known to collapse training; 'unbiased' keeps the balance",
            stacklevel=4,
        )
    if invariance_weight is None:
        invariance_weight = 4 * distributed.global_count(z_VND.shape[1], z_VND) / z_VND.shape[2]
    return invariance_weight * {"pairs": views, "mean": 1, "unbiased": views / (views - 1)}[view_scaling]


def _check_options(**options: str) -> None:
    for name, value in options.items():
        if value not in (valid := get_args(_CHOICES[name])):
            raise UserError(f"{name} must be one of {', '.join(valid)}; got {value!r}")


def _count_alive(r: Tensor, z_VND: Tensor, by_batch: bool, centre: bool) -> Tensor:
    """Columns (rows) of each view that are not zero: the trace of the moment matrix.

    Raises:
        UserError: on the CPU, a view has none. Values that are not finite are let through, to show in the loss.
    """
    alive = r.count_nonzero(dim=(1, 2))
    alive = alive if by_batch else distributed.sum_over_ranks(alive)
    if readable(alive) and not bool(alive.all()) and bool(torch.isfinite(z_VND).all()):
        what = "column" if by_batch else "row"
        raise UserError(
            f"FroSSL: every {what} of a view is zero{' or constant' if centre else ''}: the batch holds no "
            "information. The encoder has collapsed to a constant, or the images of the batch are all alike, or one."
        )
    return alive


def _by_formula(
    z_VND: Tensor, weight: float, centre: bool, by_batch: bool, log: bool, gaussian: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Total, entropy and invariance by plain autograd, for the Gaussian kernel and where gradients are transformed.

    Raises:
        UserError: many ranks, since every pair of samples must be on one here.
    """
    if distributed.world_size() > 1:
        raise UserError(
            "FroSSL by plain autograd (kernel='gaussian', create_graph, torch.compile or torch.func around the loss) "
            "needs all samples on one rank; with many, go backward as usual through the linear kernel"
        )
    n = z_VND.shape[1]
    floor = None
    if centre:
        z_VND, floor = centre_columns(z_VND, n, keep_noise=by_batch)
    r = inverse_root((z_VND * z_VND).sum(1 if by_batch else 2, keepdim=True), floor if by_batch else None)
    trace = _count_alive(r, z_VND, by_batch, centre)
    zh_VND = z_VND * r
    if gaussian:
        # Unit columns times sqrt(D) and sigma^2 = D / 2: both factors of D cancel in the exponent.
        square_distance = torch.cdist(zh_VND, zh_VND, compute_mode="donot_use_mm_for_euclid_dist").square()
        square = (torch.exp(-square_distance) / n).square().sum(dim=(1, 2))
    else:
        square = square_norm(smaller_moment(zh_VND)) / trace**2
    entropy = square.log().sum() if log else square.sum()
    invariance = (zh_VND - zh_VND.mean(0)).square().sum() * (weight / n)
    return entropy + invariance, entropy.detach(), invariance.detach()


class _FroSSL(torch.autograd.Function):
    """Forward: one matmul for all views. Backward: one matmul, since the moment matrix is symmetric.

    The gradient with respect to Zh_v is Zh_v A_v + 2w/N (Zh_v - mean) with A_v = 4 C_v / ||C_v||_F^2 (without the
    logarithm, over tr^2), or, from the Gram side, A_v Zh_v with A_v made of Zh_v Zh_v'. Going back through the
    normalisation removes the part along each normalised column (row), the whole of 2w/N Zh_v among it, and divides
    by its norm. What is not a matmul goes over blocks of columns that stay in the cache.
    """

    @staticmethod
    def forward(ctx: Any, z_VND: Tensor, weight: float, centre: bool, by_batch: bool, log: bool) -> Any:
        n = distributed.global_count(z_VND.shape[1], z_VND)
        views = len(z_VND)
        zh_VND, sum_ND = torch.empty_like(z_VND), torch.empty_like(z_VND[0])
        scales, sums = [], []
        block = block_width(z_VND) if by_batch else z_VND.shape[2]
        workspace = z_VND.new_empty(z_VND.shape[1], block)
        for z, zh, total in zip(*(x.split(block, -1) for x in (z_VND, zh_VND, sum_ND)), strict=True):
            z, floor = centre_columns(z, n, keep_noise=by_batch) if centre else (z, None)
            square = torch.mul(z, z, out=zh).sum(1 if by_batch else 2, keepdim=True)
            r = inverse_root(distributed.sum_over_ranks(square), floor) if by_batch else inverse_root(square)
            torch.mul(z, r, out=zh)
            torch.sum(zh, 0, out=total)
            sums.append(torch.mul(total, total, out=workspace[:, : total.shape[1]]).sum(0 if by_batch else 1))
            scales.append(r)
        r, sums = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1) for parts in (scales, sums))
        trace = _count_alive(r, z_VND, by_batch, centre)
        # From sums of squares, two passes fewer than subtracting the mean; rounding is 1e-8 of the loss.
        # Sum of squared distances to the mean view, column by column (row by row), where every |zh|^2 is one or zero.
        spread = r.count_nonzero(0).flatten() - (distributed.sum_over_ranks(sums) if by_batch else sums) / views
        spread = spread.clamp_min(0).sum()
        gram = distributed.world_size() == 1 and z_VND.shape[1] <= z_VND.shape[2]
        c = product_with_itself(zh_VND if gram else zh_VND.transpose(1, 2))
        c = c if gram else distributed.sum_over_ranks(c)
        square = square_norm(c)
        entropy = (square / trace**2).log().sum() if log else (square / trace**2).sum()
        invariance = (spread if by_batch else distributed.sum_over_ranks(spread)) * (weight / n)
        ctx.rest = weight, centre, by_batch, log
        ctx.save_for_backward(z_VND, zh_VND, r, sum_ND, c.mul_((4 / (square if log else trace**2))[:, None, None]))
        ctx.pull, ctx.gram, ctx.centre, ctx.block, ctx.n = 2 * weight / (n * views), gram, centre, block, n
        ctx.axis, ctx.scope = 1 if by_batch else 2, distributed.scope()
        total = entropy + invariance
        ctx.mark_non_differentiable(entropy, invariance)
        ctx.set_materialize_grads(False)
        return total, entropy, invariance

    @staticmethod
    @double_backward_by(_by_formula)
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        if grad_outputs[0] is None:
            return (None,) * 5
        _, zh_VND, r_V, sum_ND, a = ctx.saved_tensors
        with distributed.within(ctx.scope), without_autocast(zh_VND.device.type):
            g_VND = a @ zh_VND if ctx.gram else zh_VND @ a
            r_V = r_V * (grad_outputs[0] * distributed.world_size())
            workspace = g_VND.new_empty(*g_VND.shape[:2], ctx.block)
            parts = (x.split(ctx.block, -1) for x in (g_VND, zh_VND, sum_ND, r_V))
            for g, zh, total, r in zip(*parts, strict=True):
                g.sub_(total, alpha=ctx.pull)
                along = torch.mul(g, zh, out=workspace[..., : zh.shape[2]]).sum(ctx.axis, keepdim=True)
                along = distributed.sum_over_ranks(along) if ctx.axis == 1 else along
                g.addcmul_(zh, along, value=-1).mul_(r)
                if ctx.centre:
                    g.sub_(distributed.sum_over_ranks(g.sum(1, keepdim=True)) / ctx.n)
        return g_VND, None, None, None, None
