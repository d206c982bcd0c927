"""What follows a schedule: the learning rate, momentum of averaged networks; also where a run gets another length."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from frossl.core.config import from_plain, to_plain
from frossl.core.length import Length
from frossl.core.progress import Extension, Interval, Progress
from frossl.core.types import UserError
from frossl.methods import Method
from frossl.nn.optim import warmup_cosine
from frossl.train.plan import Plan

REWARM, REWARM_PEAK = 0.05, 0.5
"""Of what is added to a finished run, the share in which its learning rate rises, and to what share of its peak."""


AUTO_EPOCHS, AUTO_MINUTES = 100, 30


def resolve_length(plan: Plan, images: int, step_seconds: float) -> Length:
    """The length asked for; ``auto`` is 100 epochs, or as many whole ones as fit in 30 minutes, at least one."""
    if plan.config.length != "auto":
        return Length.parse(plan.config.length).as_images(plan.views)
    epoch_minutes = step_seconds * (images // plan.batch) / 60
    return Length(max(1, min(AUTO_EPOCHS, int(AUTO_MINUTES / max(epoch_minutes, 1e-9)))), "ep")


def lr_factor(progress: Progress, warmup: float) -> float:
    """The learning rate as a share of its peak; the first ``warmup`` of the length that the run began with rises."""
    if progress.again:
        return REWARM_PEAK * warmup_cosine(progress.along, REWARM)
    return warmup_cosine(progress.along, warmup)


def scheduled_share(progress: Progress) -> float:
    """0 to 1 of the schedules of a method.

    Where a finished run goes on, they go back as the learning rate rises, and on again as it falls: the share is that
    at which half a cosine from 1 to 0 has the value of the learning rate.
    """
    return math.acos(2 * lr_factor(progress, 0.0) - 1) / math.pi if progress.again else progress.along


def set_lr(optimizer: torch.optim.Optimizer, peak: float, factor: float, thawed: float = 1.0) -> None:
    """The learning rate is ``factor`` of its peak; groups that are steady stay at the peak.

    That of the encoder is ``thawed`` of it. Where that is 0 its gradient is taken all the same, as ranks agree on that.
    """
    for group in optimizer.param_groups:
        rate = group["scale"] * peak * (1 if group["steady"] else factor)
        group["lr"] = thawed * rate if group["encoder"] else rate


def thaw(progress: Progress, warmup: float, frozen: float) -> float:
    """What share of its rate an encoder has that is frozen at first: none, then it warms up as heads did."""
    if progress.again or not frozen:
        return 1.0
    done = progress.along - frozen
    return 0.0 if done < 0 else min(1.0, done / warmup) if warmup else 1.0


def schedule(plan: Plan, progress: Progress, images: int) -> tuple[Interval, Interval, float, float]:
    """When the monitor looks, when the run is saved, and in which shares of its first length the rate warms up and
    the encoder is frozen.

    Raises:
        UserError: one of them does not fit the length of the run.
    """
    config, batch = plan.config, plan.batch
    monitor = Interval("--monitor-every", config.monitor_every, progress, batch, images)
    checkpoint = Interval("--checkpoint-every", config.checkpoint_every, progress, batch, images)
    first = Length.parse(progress.extensions[0].before) if progress.extensions else progress.length
    warmup, frozen = (
        Length.parse(text).share(first, batch=batch, images=images, flag=flag)
        for text, flag in ((config.warmup, "--warmup"), (config.freeze, "--freeze"))
    )
    return monitor, checkpoint, warmup, frozen


def saved_progress(saved: dict[str, Any], *, batch: int, images: int) -> Progress:
    """Where the run of a checkpoint stands."""
    length = Length.parse(saved["length"])
    extensions = tuple(from_plain(Extension, plain) for plain in saved.get("extensions", ()))
    total = length.steps(batch=batch, images=images)
    return Progress(length, total, saved["step"], saved["seconds"], extensions, saved["best"])


def go_on_to(saved: dict[str, Any], asked: Length, *, batch: int, images: int) -> Progress | None:
    """Gives the run of a checkpoint the length ``asked`` for, in place; its progress if that is another than before.

    Raises:
        UserError: so much has been trained already, or one of the two lengths is in minutes and the other is not.
    """
    before = saved_progress(saved, batch=batch, images=images)
    after = replace(before, length=asked, total=asked.steps(batch=batch, images=images))
    if (before.total is None) != (after.total is None):
        units = "in min" if before.total is None else "in ep, it, img or view"
        raise UserError(f"--length {asked}: the run is one of {before.length}, so give a length {units}")
    if before.total == after.total and (after.total is not None or asked.amount == before.length.amount):
        return None
    if after.share >= 1:
        done = f"{before.step:,} steps" if after.total is not None else f"{before.seconds / 60:.2f} min"
        wanted = f", which is {after.total:,} steps" if after.total is not None else ""
        raise UserError(f"--length {asked}{wanted}: the run of {before.length} has trained {done} already; give more")
    finished = before.share >= 1
    start, again = (0.0, True) if finished else (before.along, before.again)
    added = Extension(before.step, before.seconds, str(before.length), str(asked), start, again)
    after.extensions = (*before.extensions, added)
    saved |= {"length": str(asked), "extensions": to_plain(after.extensions)}
    return after


def describe_schedules(
    progress: Progress, warmup: float, peak: float, method: Method, epochs: tuple[float, float]
) -> str:
    """How learning rate and schedules of ``method`` go on after a change of length, from and to the given epochs."""
    added = progress.extensions[-1]
    said = [f"{added.before}, now {added.after}"]
    shares = [scheduled_share(progress)]
    if progress.again and not added.start:
        said[0] += ", which had come to its end"
        said.append(
            f"learning rate up again from 0 to {REWARM_PEAK:.0%} of its peak ({REWARM_PEAK * peak:g}) within the first "
            f"{REWARM:.0%} of what is added, then along half a cosine to 0"
        )
        shares.append(scheduled_share(replace(progress, extensions=(replace(added, start=REWARM),))))
    else:
        now = peak * lr_factor(progress, warmup)
        said.append(f"learning rate on from {now:g} to 0, the rest of the schedule over the new rest of the run")
    stops = [*(method.scheduled(share, epochs[0]) for share in shares), method.scheduled(1.0, epochs[1])]
    for name in stops[0]:
        values = [f"{stop[name]:.6g}" for stop in stops]
        said.append(f"{name.replace('_', ' ')} {' to '.join(values) if len(set(values)) > 1 else f'stays {values[0]}'}")
    return "; ".join(said)
