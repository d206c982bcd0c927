"""Collectives over ranks: the only file that imports ``torch.distributed``.

Every function is the identity in a single process. Their results must be used: nothing here works in place, but
:func:`average_gradients`.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

T = TypeVar("T")
BEAT = 2.0
"""Seconds between two signs of life of a rank while others wait for it."""


class RankError(RuntimeError):
    """Another rank failed; its own message says why."""


def world_size() -> int:
    """Number of ranks that share one global batch; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of the ranks this is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum of ``x`` over all ranks, without a gradient of its own.

    Meant for hand-written backward passes, which account for the other ranks' share themselves.
    """
    if world_size() == 1:
        return x
    total = x.detach().clone()
    dist.all_reduce(total)
    return total


def global_count(n: int, like: Tensor) -> int:
    """Sum of ``n`` over all ranks, whose shards may differ in length; ``like`` is any tensor on the device."""
    return n if world_size() == 1 else int(sum_over_ranks(torch.tensor(n, device=like.device)))


def broadcast(x: Tensor) -> Tensor:
    """The first rank's ``x``, for what is drawn at random but must be the same everywhere."""
    if world_size() == 1:
        return x
    copy = x.detach().clone(memory_format=torch.contiguous_format)
    dist.broadcast(copy, src=0)
    return copy


def stack_ranks(x: Tensor) -> Tensor:
    """``x`` of every rank, all of one shape, as ``(ranks, ...)``, without a gradient."""
    if world_size() == 1:
        return x.detach()[None]
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.stack(parts)


def gather(x: Tensor, dim: int = 0) -> Tensor:
    """The shards of all ranks, joined along ``dim`` in the order of ranks; shards may differ in length there.

    Its backward sums over ranks what each makes of this rank's shard. When every rank computes the same global loss
    from the result, that is the world size times the gradient, which the averaging of DDP then divides out.
    """
    return x if world_size() == 1 else _Gather.apply(x, dim)  # type: ignore[return-value]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        ctx.dim, ctx.lengths = dim, stack_ranks(torch.tensor(x.shape[dim], device=x.device)).tolist()
        moved = x.movedim(dim, 0)
        padded = moved.new_zeros(max(ctx.lengths), *moved.shape[1:])
        padded[: len(moved)] = moved
        parts = stack_ranks(padded)
        return torch.cat([part[:n] for part, n in zip(parts, ctx.lengths, strict=True)]).movedim(0, dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        start = sum(ctx.lengths[: dist.get_rank()])
        return sum_over_ranks(grad.contiguous()).narrow(ctx.dim, start, ctx.lengths[dist.get_rank()]), None


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Puts the mean over ranks in place of each gradient: what DDP does while it goes backward, in one message.

    A parameter must have a gradient on all ranks or on none.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if world_size() == 1 or not gradients:
        return
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    for g, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        g.copy_(mean.view(g.shape))


def set_timeout(seconds: float) -> None:
    """How long the processors of ranks wait for each other here; the collectives of devices have the launcher's.

    Counts from the first call on, which makes the group that :func:`largest` and those below it speak in.
    """
    if world_size() > 1:
        _hosts(seconds)


_made: list[Any] = []


def _hosts(seconds: float = 25.0) -> Any:
    """The processors of all ranks, for what must not wait for an accelerator; torch's own timeout is half an hour."""
    if not _made:
        _made.append(dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds)))
    return _made[0]


def largest(*values: float) -> tuple[float, ...]:
    """The largest of each value over all ranks; numbers of the host, without a wait for the device."""
    if world_size() == 1:
        return values
    x = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(x, dist.ReduceOp.MAX, group=_hosts())
    return tuple(x.tolist())


def collect(values: Sequence[T]) -> list[T]:
    """What all ranks have, in their order; one small message where none has anything."""
    if world_size() == 1 or not any(largest(float(len(values)))):
        return list(values)
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, list(values), group=_hosts())
    return [value for part in parts for value in part]


def share_text(text: str) -> str:
    """The first rank's ``text``."""
    if world_size() == 1:
        return text
    texts = [text]
    dist.broadcast_object_list(texts, src=0, group=_hosts())
    return texts[0]


def on_first_rank(work: Callable[[], T]) -> T | None:
    """What ``work`` returns, on the first rank; the others wait, as in :func:`together`, and get None."""
    return together(work if rank() == 0 else lambda: None)


def together(work: Callable[[], T]) -> T:
    """What ``work`` returns on each rank, where it may take any rank however long.

    A thread of each gives a sign of life every :data:`BEAT` seconds meanwhile, so that only a rank that is gone or
    was stopped is given up. ``work`` must not speak with other ranks.

    Raises:
        RankError: ``work`` failed on another rank.
        RuntimeError: another rank did not answer for the collectives' timeout.
    """
    if world_size() == 1:
        return work()
    _hosts()
    ended, failed, seen, lost = threading.Event(), [1.0], [0.0], []

    def beat() -> None:
        running = 1.0
        try:
            while running and not seen[0]:
                ended.wait(BEAT)
                over = ended.is_set()
                running, seen[0] = largest(float(not over), failed[0] if over else 0.0)
        except RuntimeError as error:
            lost.append(error)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        result = work()
        failed[0] = 0.0
    finally:
        ended.set()
        thread.join()
    if lost:
        raise lost[0]
    if seen[0]:
        raise RankError("another rank failed; its own message says why")
    return result


def lost_rank(error: Exception) -> RankError | None:
    """What to say of ``error`` where a collective raised it because a rank did not answer; None of all others."""
    if world_size() == 1 or not isinstance(error, RuntimeError):
        return None
    rooms = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    collective = "".join(rooms[-1:]).startswith("torch.distributed")
    if not (collective or isinstance(error, dist.DistError) or "gloo" in str(error)):
        return None
    return RankError(
        f"rank {rank()} of {world_size()} got no answer from another, which died, was stopped, or took longer than "
        f"--rank-timeout: {str(error).partition(chr(10))[0]}"
    )


def leave(code: int) -> NoReturn:
    """Ends the process with an exit code.

    A failed one among several ranks skips the interpreter's clean-up: threads that still wait for a rank that is gone
    can abort it there, and the exit code with it.
    """
    if world_size() > 1:
        if code:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        dist.destroy_process_group()
    sys.exit(code)
