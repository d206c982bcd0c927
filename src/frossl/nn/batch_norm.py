"""Batch norms whose statistics are those of the global batch, on any backend, without replacing a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from frossl.core.distributed import all_gather_stacked, sum_over_ranks, world_size


class BatchNormOverRanks(TorchFunctionMode):
    """While it is entered, every batch norm in training mode takes its statistics over all ranks.

    It stands in for ``torch.nn.functional.batch_norm``, which all batch-norm layers call, those of timm and of users
    too. So modules and their keys stay as they are. Value, gradient and running statistics are those of one process
    with the whole batch; shards may differ in length. torch's own ``SyncBatchNorm`` refuses tensors on the CPU, and
    waits for the device to leave out ranks without images; here every rank has images.

    ``by_kernels`` takes torch's kernels, which CUDA alone has, for its tensors; no one has run that on a GPU yet.
    """

    def __init__(self, by_kernels: bool = False) -> None:
        super().__init__()
        self.by_kernels = by_kernels

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is functional.batch_norm and world_size() > 1:
            return _batch_norm(*args, **(kwargs or {}), by_kernels=self.by_kernels)
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
    by_kernels: bool = False,
) -> Tensor:
    if not training:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if by_kernels and input.device.type == "cuda":
        return _ByKernels.apply(input, weight, bias, running_mean, running_var, momentum, eps)  # type: ignore[return-value]
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
        counts, means, variances = all_gather_stacked(torch.cat([count, mean, variance])).split(
            [1, *[len(mean)] * 2], 1
        )
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
        return dx, mine[1] if ctx.needs_input_grad[1] else None, mine[0] if ctx.needs_input_grad[2] else None, None


class _ByKernels(torch.autograd.Function):
    """As :class:`_OverRanks`, with the running statistics changed in place, by torch's kernels: seven for a layer."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        if not (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)):
            x = x.contiguous()
        mean, scale = torch.batch_norm_stats(x, eps)
        count = torch.full_like(mean[:1], x.numel() // x.shape[1])
        means, scales, counts = all_gather_stacked(torch.cat([mean, scale, count])).split([*[len(mean)] * 2, 1], 1)
        counts = counts.flatten()
        mean, scale = torch.batch_norm_gather_stats_with_counts(
            x, means.contiguous(), scales.contiguous(), running_mean, running_var, momentum, eps, counts
        )
        ctx.save_for_backward(x, weight, mean, scale, counts.int())
        return torch.batch_norm_elemt(x, weight, bias, mean, scale, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, mean, scale, counts = ctx.saved_tensors
        channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        g = g.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        of_weight, of_bias = ctx.needs_input_grad[1:3]
        total, along, weight_grad, bias_grad = torch.batch_norm_backward_reduce(
            g, x, mean, scale, weight, True, of_weight, of_bias
        )
        total, along = sum_over_ranks(torch.cat([total, along])).split([len(total), len(along)])
        dx = torch.batch_norm_backward_elemt(g, x, mean, scale, weight, total, along, counts)
        return dx, weight_grad if of_weight else None, bias_grad if of_bias else None, *[None] * 4
