"""Batch norms whose statistics are those of the global batch, on any backend, without replacing a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from frossl.core.distributed import stack_ranks, sum_over_ranks, world_size


class BatchNormOverRanks(TorchFunctionMode):
    """While it is entered, every batch norm in training mode takes its statistics over all ranks.

    It stands in for ``torch.nn.functional.batch_norm``, which all batch-norm layers call, those of timm and of users
    too. So modules and their keys stay as they are. Value, gradient and running statistics are those of one process
    with the whole batch; shards may differ in length. torch's own ``SyncBatchNorm`` refuses tensors on the CPU.
    """

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is functional.batch_norm and world_size() > 1:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    y, mean, variance, count = _OverRanks.apply(input, weight, bias, eps)  # type: ignore[misc]
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            running_var.lerp_((variance * count / (count - 1)).to(running_var.dtype), momentum)
    return y


class _OverRanks(torch.autograd.Function):
    """Forward: one message with count, mean and variance of each rank. Backward: one with two sums per channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
        wide = x if x.dtype == torch.float64 else x.float()
        ctx.axes, ctx.shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        variance, mean = torch.var_mean(wide, ctx.axes, correction=0)
        count = torch.full_like(mean[:1], x.numel() // x.shape[1])
        counts, means, variances = stack_ranks(torch.cat([count, mean, variance])).split([1, *[len(mean)] * 2], 1)
        count = counts.sum(0)
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean).square())).sum(0) / count
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale, count)
        slope = scale if weight is None else scale * weight
        shift = -mean * slope if bias is None else bias - mean * slope
        y = torch.addcmul(shift.view(ctx.shape), wide, slope.view(ctx.shape)).to(x.dtype)
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, *_: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, mean, scale, count = ctx.saved_tensors
        wide = x if x.dtype == torch.float64 else x.float()
        g = g.to(wide.dtype)
        normalised = (wide - mean.view(ctx.shape)) * scale.view(ctx.shape)
        mine = torch.stack([g.sum(ctx.axes), (g * normalised).sum(ctx.axes)])
        total, along = (sum_over_ranks(mine) / count).view(2, *ctx.shape)
        slope = (scale if weight is None else scale * weight).view(ctx.shape)
        dx = ((g - total - normalised * along) * slope).to(x.dtype)
        return (
            dx,
            mine[1] if ctx.needs_input_grad[1] else None,
            mine[0] if ctx.needs_input_grad[2] else None,
            None,
        )
