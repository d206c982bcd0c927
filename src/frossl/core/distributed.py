"""Collectives over ranks: the only file that imports ``torch.distributed``.

Every function is the identity in a single process. Only :func:`average_gradients` works in place.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

T = TypeVar("T")
BEAT = 1.0
"""Seconds between two signs of life of a rank."""
LOST = 4
"""Exit code of a process that ends because another rank died."""


class RankError(RuntimeError):
    """Another rank failed; its own message says why."""


class Scope(NamedTuple):
    """The process group that shares a batch, and the images of each rank if they are known beforehand."""

    group: Any = None
    shards: tuple[int, ...] | None = None


_scopes = [Scope()]


def scope() -> Scope:
    """The innermost :func:`within`."""
    return _scopes[-1]


@contextmanager
def within(inner: Scope) -> Iterator[None]:
    """Sets the scope of collectives of tensors until exit; group None is all ranks, "local" this one alone."""
    _scopes.append(inner)
    try:
        yield
    finally:
        _scopes.pop()


def world_size() -> int:
    """Number of ranks that share one global batch; 1 without a process group."""
    if scope().group == "local" or not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size(scope().group)


def rank() -> int:
    """The number of this rank, from 0."""
    return dist.get_rank(scope().group) if world_size() > 1 else 0


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum of ``x`` over all ranks, without a gradient of its own.

    Meant for hand-written backward passes, which account for the other ranks' share themselves.
    """
    if world_size() == 1:
        return x
    total = x.detach().clone()
    dist.all_reduce(total, group=scope().group)
    return total


def shard_lengths(n: int, like: Tensor) -> tuple[int, ...]:
    """``n`` of every rank; waits for the device of ``like`` unless :attr:`Scope.shards` has them."""
    if world_size() == 1:
        return (n,)
    planned = scope().shards
    if planned is not None and planned[rank()] == n:
        return planned
    return tuple(all_gather_stacked(torch.tensor(n, device=like.device)).tolist())


def global_count(n: int, like: Tensor) -> int:
    """Sum of ``n`` over all ranks; ``like`` is any tensor on the device."""
    return sum(shard_lengths(n, like))


def broadcast(x: Tensor) -> Tensor:
    """The first rank's ``x``, for random values that must be the same on all ranks."""
    if world_size() == 1:
        return x
    copy = x.detach().clone(memory_format=torch.contiguous_format)
    group = scope().group
    dist.broadcast(copy, src=0 if group is None else dist.get_global_rank(group, 0), group=group)
    return copy


def all_gather_stacked(x: Tensor) -> Tensor:
    """``x`` of every rank as ``(ranks, ...)``, without a gradient; all have one shape."""
    if world_size() == 1:
        return x.detach()[None]
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, x.detach().contiguous(), group=scope().group)
    return torch.stack(parts)


def gather(x: Tensor, dim: int = 0) -> Tensor:
    """The shards of all ranks, concatenated along ``dim``; they may differ in length there.

    Its backward sums the gradients of all ranks. If every rank computes the same global loss from the result, that is
    the gradient times the world size, by which DDP's averaging then divides.
    """
    return x if world_size() == 1 else _Gather.apply(x, dim)  # type: ignore[return-value]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        ctx.dim, ctx.lengths, ctx.scope = dim, shard_lengths(x.shape[dim], x), scope()
        moved = x.movedim(dim, 0)
        padded = moved.new_zeros(max(ctx.lengths), *moved.shape[1:])
        padded[: len(moved)] = moved
        parts = all_gather_stacked(padded)
        return torch.cat([part[:n] for part, n in zip(parts, ctx.lengths, strict=True)]).movedim(0, dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        with within(ctx.scope):
            start = sum(ctx.lengths[: rank()])
            return sum_over_ranks(grad.contiguous()).narrow(ctx.dim, start, ctx.lengths[rank()]), None


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces each gradient by its mean over ranks, as DDP does, in one message.

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


def limit_waits(seconds: float) -> None:
    """Sets the timeout of collectives, which was that of the launch until now."""
    if world_size() > 1:
        public = getattr(dist, "set_timeout", None)  # not in the oldest torch that is supported
        (public or dist.distributed_c10d._set_pg_timeout)(timedelta(seconds=seconds), dist.group.WORLD)


_made: list[Any] = []


def _gloo_group() -> Any:
    """The gloo group of all ranks for host-side values; it has no timeout, as :func:`heartbeat` ends a wait."""
    if not _made or _made[0] is not dist.group.WORLD:  # this process has initialised another default group
        _made[:] = dist.group.WORLD, dist.new_group(backend="gloo", timeout=timedelta(days=7))
    return _made[1]


def all_reduce_max(*values: float) -> tuple[float, ...]:
    """The largest of each value over all ranks; does not wait for the device."""
    if world_size() == 1:
        return values
    x = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(x, dist.ReduceOp.MAX, group=_gloo_group())
    return tuple(x.tolist())


def collect(values: Sequence[T]) -> list[T]:
    """The values of all ranks, in their order; costs one small message if there are none."""
    if world_size() == 1 or not any(all_reduce_max(float(len(values)))):
        return list(values)
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, list(values), group=_gloo_group())
    return [value for part in parts for value in part]


def broadcast_object(value: T) -> T:
    """The first rank's ``value``, which must be picklable."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=_gloo_group())
    return values[0]


def join(x: Tensor, lengths: Sequence[int]) -> Tensor:
    """CPU tensors of all ranks, of these ``lengths``, concatenated, without a gradient."""
    if world_size() == 1:
        return x
    padded = x.new_zeros(max(lengths), *x.shape[1:])
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded, group=_gloo_group())
    return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)])


def run_on_rank_zero(work: Callable[[], T]) -> T | None:
    """Runs ``work`` on the first rank and returns its result; the others wait, and get None."""
    return run_with_heartbeat(work if rank() == 0 else lambda: None)


def run_with_heartbeat(work: Callable[[], T]) -> T:
    """Runs ``work``, which may take any time but must not use collectives, and waits for all ranks.

    Raises:
        RankError: ``work`` failed on another rank.
    """
    if world_size() == 1:
        return work()
    group = _gloo_group()
    try:
        result = work()
    except BaseException:  # the other ranks raise a RankError in their reduction
        dist.all_reduce(torch.ones(1, dtype=torch.float64), dist.ReduceOp.MAX, group=group, async_op=True)
        raise
    if any(all_reduce_max(0.0)):
        raise RankError(_FAILED)
    return result


_FAILED = "another rank failed; its own message says why"
_beating: list[Any] = []


@contextmanager
def heartbeat(seconds: float) -> Iterator[None]:
    """Until exit, ends this process (:data:`LOST`) if another rank fails, or is dead or frozen for ``seconds``.

    A thread of each rank gives a sign of life every :data:`BEAT` seconds, so a slow rank is waited for. That thread
    ends the process, as a collective of a device cannot be interrupted. Exit without an error waits for all ranks.
    Nested calls do nothing.

    Raises:
        RankError: another rank failed or died when this one had finished.
    """
    if world_size() == 1 or _beating == [dist.group.WORLD]:
        yield
        return
    group: Any = dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds))
    _beating[:] = [dist.group.WORLD]
    ended, failed, lost = threading.Event(), [1.0], [""]

    def beat() -> None:
        running, broken = 1.0, 0.0
        try:
            while running and not broken:
                ended.wait(BEAT)
                over = ended.is_set()
                state = torch.tensor([not over, over and failed[0]], dtype=torch.float64)
                dist.all_reduce(state, dist.ReduceOp.MAX, group=group)
                running, broken = state.tolist()
            lost[0] = _FAILED if broken else ""
        except RuntimeError:
            lost[0] = (
                f"rank {rank()} of {world_size()} got no sign of life from another, which died, or was stopped for "
                f"more than {seconds:g} s (--rank-timeout). Checkpoints stand"
            )
        if lost[0] and not ended.wait(10 * BEAT if broken else BEAT):  # otherwise this rank raises an error of its own
            os.write(2, f"frossl: {lost[0]}\n".encode())
            os._exit(LOST)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
        failed[0] = 0.0
    finally:
        ended.set()
        thread.join(5 * BEAT if failed[0] else None)
        _beating.clear()
    if lost[0]:
        raise RankError(lost[0])


def lost_rank(error: Exception) -> RankError | None:
    """The error to report if ``error`` is of a collective that another rank did not answer; else None."""
    if world_size() == 1 or not isinstance(error, RuntimeError):
        return None
    rooms = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    collective = "".join(rooms[-1:]).startswith("torch.distributed")
    if not (collective or isinstance(error, dist.DistError) or "gloo" in str(error)):
        return None
    return RankError(
        f"rank {rank()} of {world_size()} got no answer from another, which died, failed, or did not come within "
        f"--stall-timeout: {str(error).partition(chr(10))[0]}"
    )


def join_error(error: RuntimeError, rank: int, ranks: int, seconds: float) -> RankError | None:
    """The error to report if ``error`` means that not all ranks connected within ``seconds``; else None."""
    if not isinstance(error, dist.DistError):
        return None
    return RankError(
        f"rank {rank} of {ranks} did not find all others within {seconds:g} s: {str(error).partition(chr(10))[0]}. "
        "Were all started, and can they reach the first one's machine?"
    )


def exit_process(code: int) -> NoReturn:
    """Ends the process with an exit code.

    A failed rank skips the interpreter's clean-up, where threads that wait for a dead rank can abort the process and
    change the exit code.
    """
    if world_size() > 1:
        if code:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        dist.destroy_process_group()
    sys.exit(code)
