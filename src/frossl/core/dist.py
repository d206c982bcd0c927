"""Collectives over ranks: the only file that imports ``torch.distributed``.

Every function is the identity in a single process. Their results must be used: nothing here works in place.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Number of ranks that share one global batch; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum of ``x`` over all ranks, without a gradient of its own.

    Meant for hand-written backward passes, which account for the other ranks' share themselves.
    """
    if world_size() == 1:
        return x
    total = x.detach().clone()
    dist.all_reduce(total)
    return total


def broadcast(x: Tensor) -> Tensor:
    """The first rank's ``x``, for what is drawn at random but must be the same everywhere."""
    if world_size() == 1:
        return x
    copy = x.detach().clone(memory_format=torch.contiguous_format)
    dist.broadcast(copy, src=0)
    return copy


def gather(x: Tensor, dim: int = 0) -> Tensor:
    """The shards of all ranks, joined along ``dim`` in the order of ranks; shards may differ in length there.

    Its backward sums over ranks what each makes of this rank's shard. When every rank computes the same global loss
    from the result, that is the world size times the gradient, which the averaging of DDP then divides out.
    """
    return x if world_size() == 1 else _Gather.apply(x, dim)  # type: ignore[return-value]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        lengths = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(world_size())]
        dist.all_gather(lengths, torch.tensor([x.shape[dim]], device=x.device))
        ctx.dim, ctx.lengths = dim, [int(n) for n in lengths]
        moved = x.movedim(dim, 0)
        padded = moved.new_zeros(max(ctx.lengths), *moved.shape[1:])
        padded[: len(moved)] = moved
        parts = [torch.empty_like(padded) for _ in ctx.lengths]
        dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, ctx.lengths, strict=True)]).movedim(0, dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        start = sum(ctx.lengths[: dist.get_rank()])
        return sum_over_ranks(grad.contiguous()).narrow(ctx.dim, start, ctx.lengths[dist.get_rank()]), None
