"""``frossl compare``: several arms at an equal budget."""

from __future__ import annotations

import shlex
import signal
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape

from frossl.commands import pretrain
from frossl.commands.report import say_where
from frossl.core.length import Length
from frossl.core.progress import GEOMETRIC
from frossl.core.registry import unknown_name
from frossl.core.types import UserError
from frossl.recipes.cpu import FOUND_FOR
from frossl.report.comparison import show_comparison, write_comparison
from frossl.report.targets import Watched
from frossl.runs.config import Config
from frossl.train import compare
from frossl.train.jobs import Jobs, carry_out_all, split_machine
from frossl.train.planned import OVER, Run, check_plan, keep_plan, read_plan
from frossl.train.resources import device_of
from frossl.train.tune import choose_rates, join_tuning, plan_trials, trial_protocols, with_rates


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Pretrain several arms with several seeds at an equal budget and say what the outcome supports.

    Takes DATA and every option of frossl pretrain beside these, for all arms: frossl compare cifar10 --recipe
    cifar10-cpu --arms frossl:4 vicreg "vicreg --lr 1e-3" --seeds 3 --budget 10min 20ep --batch 256. What is finished
    is not run again, so the same command goes on where it was stopped, and more arms, seeds or budgets can be added.
    """

    methods: tuple[str, ...] = ()
    """objectives to compare, each with every number of --views"""
    views: tuple[int, ...] = ()
    """numbers of views per image for --methods (the view recipe's number if not given)"""
    arms: tuple[str, ...] = ()
    """arms one by one: METHOD, METHOD:VIEWS, or either with options of its own, in quotes"""
    seeds: int = 3
    """how often each arm is run, with seeds from 0"""
    budget: tuple[str, ...] = ()
    """length of every run: 20ep, 1e6img, 1e6view (forward passes of the encoder), 10min; several are several races"""
    target: float | None = None
    """accuracy to be reached while training (that of an earlier call with the same --out, or the best of the worst run
    above raw pixels, if not given)"""
    target_metric: Watched | None = None
    """accuracy that the target is one of, on part of the held-out images: knn (if not given, here or earlier), the
    online probe that learns along, or ridge, a probe fitted anew at each look"""
    tune_lr: int | None = None
    """first choose each arm's learning rate among so many, each 3 times the one before, around its own: by short runs
    on a part of the training images"""
    tune_budget: str | None = None
    """length of each of these short runs, the same for all arms (a quarter of the first --budget if not given)"""
    validation: bool = False
    """measure on a tenth of the training images, which is not trained on, in place of the held-out ones: to choose
    options, which are the arms"""
    jobs: Jobs = 1
    """runs side by side, each on a GPU or a share of the cores of its own; auto is one per GPU, or per two cores; not
    with budgets in minutes"""
    protocol: tuple[str, ...] = compare.PROTOCOLS
    """what to measure of every encoder at the end (frossl list metrics)"""
    out: Path = Path("runs/comparison")
    """directory of the comparison, with a directory for each run"""
    dry_run: bool = False
    """check everything and list the runs and how they stand, but run nothing"""
    commands: bool = False
    """print a command for each run that is not over, for a cluster; frossl report DIRECTORY gathers what they did"""
    only: str | None = None
    """carry out this run alone, in this process"""


_DECIDED = ("--method", "--seed", "--length", "--name", "--resume", "--evaluate", "--no-evaluate", "--open")
"""Options of pretrain that a comparison sets for each run itself."""


def run(args: list[str], console: Console) -> int:
    given, rest = tyro.cli(Compare, prog="frossl compare", args=args, return_unknown_args=True)
    taken = [flag for flag in _DECIDED if any(arg.partition("=")[0] == flag for arg in rest)]
    if taken:
        raise UserError(f"{', '.join(taken)}: frossl compare sets this for each run; see frossl compare --help")
    arms = _arms(given, rest)
    configure = partial(_configure, given, rest)
    if given.target is not None and not 0 < given.target < 1:
        raise UserError(f"--target {given.target:g}: an accuracy is a share, such as 0.4")
    runs = compare.plan_runs(arms, given.budget, given.seeds, configure, given.out, given.validation)
    trials = plan_trials(runs, given.tune_lr, given.tune_budget, given.protocol) if given.tune_lr is not None else []
    if given.only is not None:
        return _carry_out(given, trials, runs, console)
    if given.jobs != 1 and (timed := [r.budget for r in (*trials, *runs) if Length.parse(r.budget).unit == "min"]):
        raise UserError(f"--jobs {given.jobs}: runs side by side slow each other, so no budget in minutes ({timed[0]})")
    parts = split_machine(given.jobs, device_of(runs[0].config).type)
    quiet = Console(quiet=True) if given.commands else console
    for planned in filter(None, (trials, runs)):
        compare.check(planned, given.protocol, quiet)
    check_plan(runs, {trial.arm for trial in trials})
    again = ["compare", *(arg for arg in args if arg != "--commands")]
    if given.dry_run or given.commands:
        return _list(given, trials, runs, again, console)
    about = _about(given, again, runs)
    command = [sys.executable, "-m", "frossl.cli", *again, "--only"]
    if trials:
        keep_plan(trials, about)
        protocols = trial_protocols(given.protocol)
        _, stopped = carry_out_all(trials, protocols, command, console, lambda: None, parts)
        if stopped:
            return 128 + signal.Signals[stopped]
    runs = _keep_runs(given, trials, runs, about)
    failed, stopped = carry_out_all(runs, given.protocol, command, console, partial(write_comparison, given.out), parts)
    study = write_comparison(given.out)
    show_comparison(console, study)
    say_where(given.out / "comparison.html", False, console)
    return 128 + signal.Signals[stopped] if stopped else 1 if failed else 0


def _arms(given: Compare, rest: list[str]) -> list[str]:
    """The arms of the command; ``rest`` are data and options for all of them.

    Raises:
        UserError: something that every comparison needs is missing.
    """
    if given.views and not given.methods:
        write = " ".join(f"frossl:{count}" for count in given.views)
        raise UserError(f"--views goes with --methods; with --arms write {write}")
    arms = [f"{m}:{v}" for m in given.methods for v in given.views] if given.views else list(given.methods)
    arms += given.arms
    needs = {
        "the data first": rest,
        "at least one arm (--methods or --arms)": arms,
        "a --budget": given.budget,
        "--seeds of 1 or more": given.seeds > 0,
    }
    if missing := [need for need, there in needs.items() if not there]:
        raise UserError(f"give {', '.join(missing)}: frossl compare cifar10 --methods frossl vicreg --budget 10min")
    return arms


def _configure(given: Compare, rest: list[str], arm: str) -> Config[Any]:
    """The configuration of an arm, with the options for all.

    Raises:
        UserError: an option is wrong; the parser has printed which.
    """
    options = compare.arm_options(arm)
    help_of = f"frossl pretrain DATA --method {options[1]}"
    try:
        config = pretrain.parse([*rest, *options], help_of, monitor_every=GEOMETRIC).config
    except SystemExit as ended:
        if not ended.code:
            raise
        raise UserError(
            f"the message above is about the arm {arm!r} and the options for all arms. {help_of} --help lists the "
            "options of the arm, frossl compare --help those of the comparison"
        ) from None
    return replace(config, monitor_ridge=config.monitor_ridge or _target(given)["target_metric"] == "ridge")


def _about(given: Compare, again: list[str], runs: list[Run]) -> dict[str, Any]:
    """The part of ``comparison.json`` about the command; ``found_for`` has the method that a recipe was made for."""
    found = {run.config.recipe: FOUND_FOR[run.config.recipe] for run in runs if run.config.recipe in FOUND_FOR}
    about = {"command": shlex.join(["frossl", *again]), "found_for": found}
    return about | _target(given)


def _target(given: Compare) -> dict[str, Any]:
    """The target and its metric, those of an earlier call with the same ``--out`` where they are not given."""
    before = read_plan(given.out)
    metric = given.target_metric or before.get("target_metric", "knn")
    same = metric == before.get("target_metric")
    return {"target_metric": metric, "target": before.get("target") if same and given.target is None else given.target}


def _keep_runs(given: Compare, trials: list[Run], runs: list[Run], about: dict[str, Any]) -> list[Run]:
    """Writes the plan of the runs; returns them, with the learning rates that ``trials`` found, if there are any."""
    if trials:
        about |= {"tuning": join_tuning(given.out, choose_rates(trials, given.protocol))}
        runs = with_rates(runs, about["tuning"]["chosen"])
    keep_plan(runs, about)
    return runs


def _carry_out(given: Compare, trials: list[Run], runs: list[Run], console: Console) -> int:
    """Carries out the run of ``--only`` in this process."""
    assert given.only is not None
    planned = {run.name: run for run in (*trials, *runs)}
    if given.only not in planned:
        raise unknown_name("run of this comparison", given.only, list(planned))
    run, protocols = planned[given.only], given.protocol
    if run in trials:
        protocols = trial_protocols(protocols)
    elif trials:
        (run,) = with_rates([run], choose_rates(trials, protocols)["chosen"])
    pretrain.settle_process(run.config)
    stopped = compare.carry_out(run, protocols, console)
    return 128 + signal.Signals[stopped] if stopped else 0


def _list(given: Compare, trials: list[Run], runs: list[Run], again: list[str], console: Console) -> int:
    """Prints the runs and their states, or a command for each that is left; of trials first, as runs depend on them."""
    states = {run.name: run.state(trial_protocols(given.protocol)) for run in trials}
    trying = any(state not in OVER for state in states.values())
    if given.dry_run:
        states |= {run.name: run.state(given.protocol) for run in runs}
        for name, state in states.items():
            console.print(f"{state:9} {escape(name)}", highlight=False, soft_wrap=True)
        return 0
    about = _about(given, again, runs)
    if trying:
        keep_plan(trials, about)
        print("# choose learning rates; then ask for --commands again", file=sys.stderr)
    else:
        states = {run.name: run.state(given.protocol) for run in _keep_runs(given, trials, runs, about)}
    for name, state in states.items():
        if state not in OVER:
            print(shlex.join(["frossl", *again, "--only", name]))
    return 0
