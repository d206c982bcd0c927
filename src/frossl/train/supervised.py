"""The supervised arm of an evaluation: what the encoder of a run would have learned from labels."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from frossl.core.distributed import broadcast_object, rank, run_on_rank_zero
from frossl.core.length import Length
from frossl.core.types import UserError
from frossl.nn.encoder import load_encoder
from frossl.report import terminal
from frossl.runs.checkpoint import ended_before_a_save, load_newest, newest_position
from frossl.runs.config import Config
from frossl.runs.data import find_run_data
from frossl.runs.directory import read_run, require_own, worth_keeping
from frossl.runs.encoders import START_FILE
from frossl.runs.record import read_config
from frossl.train.evaluate import on_this_device
from frossl.train.pretrain import train_run
from frossl.train.ranks import load_on_all_ranks, start


def supervised_encoder(
    run: Path,
    *,
    backbone: nn.Module | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> nn.Module:
    """The encoder trained with labels by cross entropy, with the views, steps, optimiser, rate and seed of ``run``.

    The first call trains it on the run's own data in ``run/supervised``, a run directory; after an interruption the
    next call continues. ``backbone`` is the untrained module if ``run`` trained one of yours; otherwise weights start
    as those of the run did.

    Raises:
        UserError: the data have no labels, or the run needs a ``backbone``.
        KeyboardInterrupt: stopped by a signal, and saved.
    """
    console = console or Console(quiet=True)
    require_own(run, backbone)
    config = read_run(run)[0]
    place, steps = run / "supervised", _steps(run)
    begun = not ended_before_a_save(place)
    if not begun or _steps(place) < steps:
        terminal.say(console, f"the same encoder with labels, {steps:,} steps, once", "Arm")

        def prepare() -> dict[str, Any] | None:
            place.mkdir(exist_ok=True)
            if (run / START_FILE).exists():
                shutil.copyfile(run / START_FILE, place / START_FILE)
            return load_newest(place, partial(terminal.warn, console))[1] if begun else None

        state = broadcast_object(run_on_rank_zero(prepare))
        config = _with_labels(config, steps, run, device=device, data_dir=data_dir or config.data_dir)
        config = on_this_device(run, config)
        try:
            data = load_on_all_ranks(lambda: find_run_data(run, config, terminal.detail(console)))
            _, stopped = train_run(config, place, state, copy.deepcopy(backbone), data, console, start(config))
        except BaseException:
            if rank() == 0 and not worth_keeping(place):
                shutil.rmtree(place, ignore_errors=True)
            raise
        if stopped:
            terminal.warn(console, f"Stopped by {stopped}; saved. The same command goes on.")
            raise KeyboardInterrupt
    return load_encoder(place / "encoder.safetensors", backbone)[0]


def _with_labels(config: Config, steps: int, run: Path, **changes: Any) -> Config:
    """``config`` for cross entropy and ``steps`` steps; a warm-up or freeze in minutes becomes a percentage."""
    first = Length.parse(read_config(run).get("extensions", [{"before": config.length}])[0]["before"])
    for name in ("warmup", "freeze"):
        part = Length.parse(getattr(config, name))
        if part.unit == "min":
            changes[name] = f"{100 * part.amount / first.amount:.6f}%"
    changes |= {"method": "supervised", "objective": None, "labels": True, "length": f"{steps}it"}
    return dataclasses.replace(config, out=run, name="supervised", **changes)


def _steps(run: Path) -> int:
    """The step of the newest checkpoint of ``run``; raises UserError if it is damaged."""
    try:
        return newest_position(run)["step"]
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"the newest checkpoint of {run} does not say its step: {error}") from None
