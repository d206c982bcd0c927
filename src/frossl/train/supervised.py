"""The supervised arm of an evaluation: what the encoder of a run would have learned from labels."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path

from rich.console import Console
from torch import nn

from frossl.core.length import Length
from frossl.nn.encoder import load_encoder
from frossl.report import terminal
from frossl.runs.checkpoint import ended_before_a_save, load_newest, newest_checkpoint
from frossl.runs.config import Config
from frossl.runs.directory import read_run, refuse_without_own, worth_keeping
from frossl.train.pretrain import _train
from frossl.train.ranks import start


def supervised_encoder(
    run: Path,
    *,
    backbone: nn.Module | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> nn.Module:
    """The encoder trained with labels by cross entropy, with the views, steps, optimiser, rate and seed of ``run``.

    Trained on the run's own data the first time it is asked for, in ``run/supervised``, which is a run directory; if
    that is interrupted, the next call goes on. ``backbone`` is the untrained module of a run of one's own.
    Without it, weights start at random, by the seed.

    Raises:
        UserError: the data have no labels, or the run needs a ``backbone``.
        KeyboardInterrupt: stopped by a signal; what was done is saved.
    """
    console = console or Console(quiet=True)
    config, _ = read_run(run)
    if backbone is None:
        refuse_without_own(run)
    config = dataclasses.replace(config, device=device, data_dir=data_dir or config.data_dir)
    place, steps = run / "supervised", _steps_done(run)
    begun = not ended_before_a_save(place)
    if not begun or _steps_done(place) < steps:
        terminal.say(console, f"the same encoder with labels, {steps:,} steps, once", "Arm")
        batch = json.loads((run / "config.json").read_text())["batch"]
        place.mkdir(exist_ok=True)
        state = load_newest(place, console.print)[1] if begun else None
        try:
            config = _with_labels(config, batch, steps, run)
            _, stopped = _train(config, place, state, copy.deepcopy(backbone), None, console, start(config))
        except BaseException:
            if not worth_keeping(place):
                shutil.rmtree(place, ignore_errors=True)
            raise
        if stopped:
            console.print(f"[yellow]Stopped by {stopped}; saved. The same command goes on.[/]")
            raise KeyboardInterrupt
    return load_encoder(place / "encoder.safetensors", backbone)[0]


def _with_labels(config: Config, batch: int, steps: int, run: Path) -> Config:
    """``config`` for cross entropy, its length and warm-up counted in steps where they were by the clock."""
    warmup, length = Length.parse(config.warmup), Length.parse(config.length)
    by_clock = warmup.unit == "min"
    return dataclasses.replace(
        config,
        method="supervised",
        objective=None,
        labels=True,
        batch=batch,
        length=f"{steps}it",
        warmup=f"{100 * warmup.amount / length.amount:.6f}%" if by_clock else config.warmup,
        out=run,
        name="supervised",
    )


def _steps_done(run: Path) -> int:
    return int(newest_checkpoint(run).stem.partition("-")[2])
