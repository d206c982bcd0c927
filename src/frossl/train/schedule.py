"""Schedules of learning rate, size of views and the method's values, also where the length of a run changes."""

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
from frossl.views.recipes import Recipe, with_size

REWARM, REWARM_PEAK = 0.05, 0.5  # the whole peak undoes more of what was learned
"""Warm-up of a finished run that continues: a fraction of what is added, up to a fraction of the peak learning rate."""
AUTO_EPOCHS, AUTO_MINUTES = 100, 30


def resolve_length(plan: Plan, images: int, step_seconds: float) -> Length:
    """The length asked for; ``auto`` is 100 epochs, or as many whole ones as fit in 30 minutes, at least one."""
    if plan.config.length != "auto":
        return Length.parse(plan.config.length).as_images(plan.views)
    epoch_minutes = step_seconds * (images // plan.batch) / 60
    return Length(max(1, min(AUTO_EPOCHS, int(AUTO_MINUTES / max(epoch_minutes, 1e-9)))), "ep")


def lr_factor(progress: Progress, warmup: float) -> float:
    """The learning rate over its peak; ``warmup`` is a fraction of the length that the run began with."""
    if progress.again:
        return REWARM_PEAK * warmup_cosine(progress.schedule_fraction, REWARM)
    return warmup_cosine(progress.schedule_fraction, warmup)


def method_progress(progress: Progress) -> float:
    """0 to 1 of the schedules of a method.

    Where a finished run continues, it goes back as the learning rate rises, and forward again as it falls: half a
    cosine from 1 to 0 has the value of the learning rate there.
    """
    return math.acos(2 * lr_factor(progress, 0.0) - 1) / math.pi if progress.again else progress.schedule_fraction


def recipe_at(plan: Plan, progress: Progress) -> Recipe:
    """The views of the step at ``progress``: smaller at first where ``config.progressive`` says so."""
    smaller = plan.config.progressive
    stage = len(smaller) if progress.again else int(progress.schedule_fraction * (len(smaller) + 1))
    return with_size(plan.recipe, smaller[stage]) if stage < len(smaller) else plan.recipe


def set_lr(optimizer: torch.optim.Optimizer, peak: float, factor: float, thawed: float = 1.0) -> None:
    """Sets the learning rate to ``factor`` of its peak, except in groups with a constant one.

    The encoder's is multiplied by ``thawed``; at 0 its gradient is computed all the same, as ranks must agree on that.
    """
    for group in optimizer.param_groups:
        rate = group["scale"] * peak * (1 if group["steady"] else factor)
        group["lr"] = thawed * rate if group["encoder"] else rate


def thaw(progress: Progress, warmup: float, frozen: float) -> float:
    """The factor of the learning rate of an encoder that is frozen at first: 0, then a warm-up as that of the heads."""
    if progress.again or not frozen:
        return 1.0
    done = progress.schedule_fraction - frozen
    return 0.0 if done < 0 else min(1.0, done / warmup) if warmup else 1.0


def schedule(plan: Plan, progress: Progress, images: int) -> tuple[Interval, Interval, float, float]:
    """Intervals of the monitor and of checkpoints; the fractions of the first length for warm-up and frozen encoder.

    Raises:
        UserError: one of them does not fit the length of the run.
    """
    config, batch = plan.config, plan.batch
    monitor = Interval("--monitor-every", config.monitor_every, progress, batch, images)
    checkpoint = Interval("--checkpoint-every", config.checkpoint_every, progress, batch, images)
    first = Length.parse(progress.extensions[0].before) if progress.extensions else progress.length
    warmup, frozen = (
        Length.parse(text).fraction_of(first, batch=batch, images=images, flag=flag)
        for text, flag in ((config.warmup, "--warmup"), (config.freeze, "--freeze"))
    )
    return monitor, checkpoint, warmup, frozen


def saved_progress(saved: dict[str, Any], *, batch: int, images: int) -> Progress:
    """The progress of the run that a checkpoint saved."""
    length = Length.parse(saved["length"])
    extensions = tuple(from_plain(Extension, plain) for plain in saved.get("extensions", ()))
    total = length.steps(batch=batch, images=images)
    return Progress(length, total, saved["step"], saved["seconds"], extensions, saved["best"])


def go_on_to(saved: dict[str, Any], asked: Length, *, batch: int, images: int) -> Progress | None:
    """Changes the length in the checkpoint ``saved``, in place; the new progress, None if it is the same length.

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
    if after.fraction >= 1:
        done = f"{before.step:,} steps" if after.total is not None else f"{before.seconds / 60:.2f} min"
        steps = f", which is {after.total:,} steps" if after.total is not None else ""
        raise UserError(f"--length {asked}{steps}: the run of {before.length} has trained {done} already; give more")
    finished = before.fraction >= 1
    start, again = (0.0, True) if finished else (before.schedule_fraction, before.again)
    added = Extension(before.step, before.seconds, str(before.length), str(asked), start, again)
    after.extensions = (*before.extensions, added)
    saved |= {"length": str(asked), "extensions": to_plain(after.extensions)}
    return after


def describe_schedules(
    progress: Progress, warmup: float, peak: float, method: Method, epochs: tuple[float, float]
) -> str:
    """How learning rate and schedules of ``method`` continue after a change of length, from and to the given epochs."""
    added = progress.extensions[-1]
    parts = [f"{added.before}, now {added.after}"]
    points = [method_progress(progress)]
    if progress.again and not added.start:
        parts[0] += ", which had come to its end"
        parts.append(
            f"learning rate up again from 0 to {REWARM_PEAK:.0%} of its peak ({REWARM_PEAK * peak:g}) within the first "
            f"{REWARM:.0%} of what is added, then along half a cosine to 0"
        )
        points.append(method_progress(replace(progress, extensions=(replace(added, start=REWARM),))))
    else:
        now = peak * lr_factor(progress, warmup)
        parts.append(f"learning rate on from {now:g} to 0, the rest of the schedule over the new rest of the run")
    stops = [*(method.scheduled(point, epochs[0]) for point in points), method.scheduled(1.0, epochs[1])]
    for name in stops[0]:
        values = [f"{stop[name]:.6g}" for stop in stops]
        change = " to ".join(values) if len(set(values)) > 1 else f"stays {values[0]}"
        parts.append(f"{name.replace('_', ' ')} {change}")
    return "; ".join(parts)
