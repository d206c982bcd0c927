"""Comparisons: the runs of several arms at an equal budget, each in a process of its own, which can be resumed."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape

from frossl.core.length import Length
from frossl.core.machine import environment, machine, peak_memory, speed_of
from frossl.core.progress import Progress
from frossl.core.types import StepContext, UserError
from frossl.data import Dataset
from frossl.data.options import COLUMNS
from frossl.evals import applicable, defaults, find_metrics
from frossl.evals.extract import BANK, EVALUATED
from frossl.evals.suite import CONTROLS
from frossl.methods import METHODS
from frossl.report import terminal
from frossl.runs.config import Config
from frossl.runs.data import load_run_data, on_validation
from frossl.runs.directory import read_run
from frossl.runs.encoders import START_FILE, start_weights
from frossl.runs.record import read_config
from frossl.train.evaluate import evaluate_run
from frossl.train.loop import NonFiniteError, build, schedule
from frossl.train.planned import Run, names_in
from frossl.train.pretrain import pretrain
from frossl.train.resources import device_of
from frossl.views.recipes import pair

PROTOCOLS = defaults("compare")
"""Metrics of every encoder: accuracies, and figures that need no labels."""


def arm_options(arm: str) -> list[str]:
    """The options of ``frossl pretrain`` for an arm.

    >>> arm_options("frossl:4 --lr 1e-3")
    ['--method', 'frossl', '--views', '4', '--lr', '1e-3']

    Raises:
        UserError: it does not begin with a method, or what follows the colon is no number of views.
    """
    try:
        method, *options = shlex.split(arm)
    except ValueError:
        method, options = "", []
    if not method or method.startswith("-"):
        how = "write METHOD, METHOD:VIEWS, or either with options, as 'frossl:4 --lr 1e-3'"
        raise UserError(f"{arm!r} is no arm: {how}")
    name, _, views = method.rpartition(":")
    if name in METHODS and not views.isdigit():
        raise UserError(
            f"{arm!r}: {views!r} is not a number of views; write {name}:4, or {name} for the recipe's number"
        )
    chosen = [name, "--views", views] if name and views.isdigit() else [method]
    return ["--method", *chosen, *options]


def plan_runs(
    arms: Sequence[str],
    budgets: Sequence[str],
    seeds: int,
    configure: Callable[[str], Config],
    out: Path,
    validation: bool = False,
) -> list[Run]:
    """Every arm under every budget with every seed; all arms of a seed come before the next seed.

    ``configure`` makes the configuration of an arm. ``validation`` is that of :class:`Run`.

    Raises:
        UserError: an arm is there twice, or arms differ in the images or steps at which they are measured.
    """
    base, taken = {arm: configure(arm) for arm in arms}, names_in(out)
    runs = [
        Run.plan(f"{arm} {budget} seed{s}", arm, budget, replace(base[arm], seed=s), out, taken, validation=validation)
        for s, budget, arm in product(range(seeds), budgets, arms)
    ]
    for name in (names := [run.name for run in runs]):
        if names.count(name) > 1:
            raise UserError(f"the run {name} is planned twice; leave out one of the arms or budgets that are the same")
    for field in ("data", "labels", "targets", *COLUMNS, "channels", "range", "pages", "axes", "held_out"):
        if len({getattr(run.config, field) for run in runs}) > 1:
            raise UserError(f"arms that differ in {field} are not measured on the same images and cannot be compared")
    if len(every := {run.config.monitor_every for run in runs}) > 1:
        raise UserError(
            f"the monitor would look at some arms {' and at others '.join(sorted(every))}: what it takes to reach a "
            "target would not be seen alike. Give --monitor-every once, for all arms"
        )
    return runs


def check(runs: Sequence[Run], protocols: Sequence[str], console: Console) -> None:
    """Opens the data, builds every arm and calls its method on noise once, before anything is run.

    Raises:
        UserError: a protocol or an arm does not work; names it.
    """
    find_metrics(protocols)
    data = load_arm_data(runs[0], console)
    terminal.show_data(console, data)
    for run in runs:
        if run.seed == runs[0].seed:
            try:
                _check(run.config, data)
            except UserError as error:
                raise UserError(f"{run.arm}, {run.budget}: {error}") from None


def load_arm_data(run: Run, console: Console) -> Dataset:
    """The training and evaluation images of a run."""
    data = load_run_data(run.config, terminal.detail(console))
    return on_validation(run.config, data) if run.validation else data


def _check(config: Config, data: Dataset) -> None:
    learner, plan = build(config, data, start=start_weights(config))
    images, batch = len(data.train), plan.batch
    length = Length.parse(config.length).as_images(plan.views)
    schedule(plan, Progress(length, length.steps(batch=batch, images=images)), images)
    if learner.method.trains:
        noise_VNF = torch.randn(plan.views, batch, plan.spec.features)
        labels_N = torch.arange(batch) % max(1, len(data.classes))
        target_VNF = noise_VNF[: learner.method.spec.large_views]
        with torch.no_grad():
            learner.method(noise_VNF, StepContext(target_VNF=target_VNF, labels_N=labels_N))


def carry_out(run: Run, protocols: Sequence[str], console: Console) -> str | None:
    """Trains and evaluates one run in this process, as far as it is not done; returns the signal that stopped it.

    A loss that is not a number is an outcome, not an error.
    """
    try:
        with FileLock(run.log(".lock"), timeout=0):
            if run.outcome().get("state") == "diverged":
                return None
            if Length.parse(run.budget).unit == "min" and not run.outcome():
                refuse_mixed(run)
            data = load_arm_data(run, console)
            stopped = None if run.outcome() else _train(run, data, console)
            if run.outcome().get("state") == "trained":
                _evaluate(run, data, protocols, console)
            return stopped
    except Timeout:
        raise UserError(f"another process is at {run.name}; wait for it, or stop it") from None


def refuse_mixed(run: Run) -> None:
    """Raises UserError if a run with a budget in minutes began on another machine, where a minute is worth another."""
    here = speed_of(machine() | environment())
    for path in sorted(run.config.out.glob("*/config.json")):
        about = read_config(path.parent)
        there = speed_of(about.get("machine", {}) | about.get("environment", {}))
        if Length.parse(about["config"]["length"]).unit == "min" and there != here:
            raise UserError(
                f"{run.name} has a budget in minutes, and {path.parent.name} was run on another machine ({there}; this "
                f"one is {here}): minutes would not be worth the same. Run all of them on one machine, with as many "
                "threads, or give a budget in images, epochs, views or steps"
            )


def _train(run: Run, data: Dataset, console: Console) -> str | None:
    """Trains, or resumes from a checkpoint, and saves the outcome; returns the signal that stopped it."""
    config, resume = replace(run.config, evaluate=False), None
    if any((run.path / "checkpoints").glob("step-*")):
        resume = run.path
        config = replace(config, out=read_run(resume)[0].out)  # the directory of the comparison may have been moved
    else:
        shutil.rmtree(run.path, ignore_errors=True)
    try:
        ended = pretrain(config, data=data, resume=resume, report=not run.trial, console=console)
    except NonFiniteError as error:
        run.keep({"state": "diverged", "message": str(error)})
        console.print(f"[bold red]Diverged[/] {escape(str(error))}")
        return None
    if not ended.stopped:
        where = {"peak_memory": peak_memory(device_of(run.config).type), "machine": machine() | environment()}
        run.keep({"state": "trained", **where, "evaluated": []})
    return ended.stopped


def _evaluate(run: Run, data: Dataset, protocols: Sequence[str], console: Console) -> None:
    """Measures those of ``protocols`` that have not been measured."""
    outcome = run.outcome()
    missing = tuple(name for name in protocols if name not in outcome["evaluated"])
    if missing:
        device, known = run.config.device, known_controls(run, data.name, tuple(applicable(missing, data.targets)))
        how = {"known": known, "bank": BANK if run.trial else EVALUATED, "device": device, "console": console}
        evaluate_run(run.path, data=data, protocols=missing, **how)
        run.keep(outcome | {"evaluated": [*outcome["evaluated"], *missing]})


def known_controls(run: Run, data: str, protocols: Sequence[str]) -> dict[str, dict[str, float]]:
    """The controls that another run of the comparison has measured with the same encoder, seed and views."""

    def subject(path: Path) -> tuple[Any, ...]:
        config, recipe = read_run(path)
        began = (path / START_FILE).read_bytes() if (path / START_FILE).exists() else b""
        return read_config(path)["encoder"], config.seed, config.data, pair(recipe), began

    own = subject(run.path)
    for path in sorted(run.config.out.glob("*/evaluation.json")):
        measured = json.loads(path.read_text()).get(data, {"protocols": {}})
        if set(protocols) <= set(measured["protocols"]) and subject(path.parent) == own:
            return {arm: values for arm, values in measured["arms"].items() if arm in CONTROLS}
    return {}
