"""Pretraining from a configuration to a run directory."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from torch import nn

from frossl.core.distributed import broadcast_object, limit_waits, rank, run_on_rank_zero, world_size
from frossl.core.files import write_text
from frossl.core.length import Length
from frossl.core.machine import environment
from frossl.data import Dataset
from frossl.evals.suite import Evaluation
from frossl.methods import find_method
from frossl.nn.encoder import save_encoder
from frossl.report import terminal
from frossl.report.page import write_report
from frossl.runs import directory
from frossl.runs.checkpoint import ended_before_a_save, load_checkpoint, load_newest
from frossl.runs.config import Config
from frossl.runs.data import find_run_data, for_training, keep_whereabouts
from frossl.runs.encoders import START_FILE, start_weights
from frossl.runs.log import UNREADABLE, read_unreadable, require_wandb
from frossl.train.display import TrainingDisplay
from frossl.train.evaluate import check_scale, evaluate_run
from frossl.train.loop import build, train
from frossl.train.memory import fit
from frossl.train.plan import Plan, describe
from frossl.train.ranks import joined, load_on_all_ranks, require_same
from frossl.train.schedule import describe_schedules, go_on_to, resolve_length, schedule
from frossl.views.recipes import left_out

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The directory of a run, the signal that stopped it if any, and its evaluation if any."""

    run: Path
    stopped: str | None
    evaluation: Evaluation | None


def pretrain(
    config: Config,
    *,
    backbone: nn.Module | None = None,
    data: Dataset | None = None,
    resume: Path | str | None = None,
    report: bool = True,
    console: Console | None = None,
) -> Outcome:
    """Pretrains an encoder as ``config`` says, evaluates it and writes a report.

    ``resume`` is a run directory to continue from its newest checkpoint, or from the start if there is none yet;
    "auto" is the directory of the configuration's name, if it exists.

    ``backbone`` is any module that maps ``(B, C, H, W)`` to ``(B, F)``, trained in place of ``config.backbone`` from
    its present weights; to resume, give one of the same architecture. Sub-modules in eval mode stay in it if the module
    itself is in train mode; otherwise all of it is trained. If timm builds the same module by a name, with no options
    or ``config.backbone_options``, the run is one of that name, which commands can resume, evaluate and export. The
    untrained control is ``backbone`` as it was given here, and has random weights from the seed in those commands.
    ``data`` is the data set of ``config`` if the caller has it already.

    Raises:
        UserError: the run cannot be made as asked; says what to do.
        NonFiniteError: the loss or its gradient is not a number.
    """
    console = console or Console(quiet=True)
    again = resume == "auto"
    resume = directory.begun_run(config) if again else resume
    if resume is not None:
        resume = Path(resume)
        config = directory.continued(resume, config, own=backbone is not None)
    if config.wandb:
        require_wandb()
    with joined(config) as fabric, ExitStack() as held:
        if rank() > 0:
            console = Console(quiet=True)
        require_same(resume, {name: getattr(config, name) for name in SAME_ON_ALL_RANKS})
        run = resume or broadcast_object(run_on_rank_zero(lambda: directory.new_run_directory(config, again)))
        assert run is not None

        def enter() -> None:
            held.enter_context(directory.alone_in(run))
            if resume is None:
                directory.refuse_begun(run)  # another process may have begun it while this one waited
            held.enter_context(terminal.logged(console, run / directory.LOG))

        run_on_rank_zero(enter)
        return _pretrain_in(run, config, resume is not None, backbone, data, report, console, fabric)


SAME_ON_ALL_RANKS = "monitor_every", "checkpoint_every", "log_every", "telemetry_every", "track_eigenvalues", "length"
"""Options that decide when ranks communicate, and that a resumed run may change."""


def _pretrain_in(
    run: Path,
    config: Config,
    resumed: bool,
    backbone: nn.Module | None,
    data: Dataset | None,
    report: bool,
    console: Console,
    fabric: Fabric,
) -> Outcome:
    """Trains, evaluates and reports in the directory ``run``, which is removed if it fails before its first row."""
    untrained = copy.deepcopy(backbone)
    state = None
    try:
        if resumed:
            directory.require_own(run, backbone)
            state = _newest_state(run, console)
        data, stopped = train_run(config, run, state, backbone, data, console, fabric)
    except BaseException as error:
        if rank() == 0 and not resumed and not directory.worth_keeping(run):
            shutil.rmtree(run, ignore_errors=True)
        if world_size() > 1:
            error.add_note(f"This was rank {rank()} of {world_size()}. If another died or was stopped, that is why.")
        raise
    if stopped:
        terminal.warn(console, f"Stopped by {stopped}; saved. Go on with: {directory.resume_command(run)}")
        return Outcome(run, stopped, None)
    terminal.wrote(console, "Saved ", run / "encoder.safetensors")
    evaluation = None
    if config.evaluate:
        evaluation = evaluate_run(run, data=data, backbone=untrained, device=config.device, console=console)
    if rank() == 0 and report:
        with console.status("writing the report") as status:
            warn = partial(terminal.warn, console)
            path = write_report([run], run / "report.html", data=data, backbone=untrained, log=status.update, warn=warn)
        terminal.wrote(console, "Report", path)
    return Outcome(run, None, evaluation)


def _newest_state(run: Path, console: Console) -> dict[str, Any] | None:
    """The newest intact checkpoint, the same on all ranks; None before the first save."""
    begun = not ended_before_a_save(run)
    if not begun:
        terminal.warn(console, f"{run} ended before its first save and begins again")
    found = run_on_rank_zero(lambda: load_newest(run, partial(terminal.warn, console)) if begun else None)
    path = broadcast_object(found and found[0])
    return found[1] if found else path and load_checkpoint(path)


def train_run(
    config: Config,
    run: Path,
    state: dict[str, Any] | None,
    backbone: nn.Module | None,
    given: Dataset | None,
    console: Console,
    fabric: Fabric,
) -> tuple[Dataset, str | None]:
    """Trains the encoder of ``run``; returns the data and the signal that stopped it, if any."""
    log = terminal.detail(console)
    begin = start_weights(config, run, log)
    if begin is not None and begin[1].range and config.range is None:
        config = dataclasses.replace(config, range=begin[1].range)
    data = load_on_all_ranks(lambda: for_training(config, find_run_data(run, config, log) if given is None else given))
    if begin is not None:
        check_scale(data, begin[1])
    learner, plan = build(config, data, backbone, begin, log)
    terminal.show_data(console, data)
    images = len(data.train)
    seconds, extended = 0.0, None
    if state is not None:
        tell_differences(console, state["environment"])
        directory.refuse_differences(run, describe(plan, Length.parse(config.length), data), data)
        extended = go_on_to(state, Length.parse(config.length), batch=plan.batch, images=images)
    if learner.method.trains:
        seconds, plan = fit(learner, plan, data, fabric, lambda text: terminal.say(console, text))
    limit_waits(config.stall_timeout)
    length = Length.parse(state["length"]) if state else resolve_length(plan, images, seconds)
    show_plan(console, plan, length, images, seconds, run, state)

    def write() -> None:
        if begin is not None:
            save_encoder(run / START_FILE, learner.backbone, plan.spec)
        write_text(run / "config.json", json.dumps(describe(plan, length, data), indent=2) + "\n")
        keep_whereabouts(run, config, data)

    if state is None:
        run_on_rank_zero(write)  # the other ranks read the files
    if extended is not None:
        if learner.method.trains:
            warmup = schedule(plan, extended, images)[2]
            per_epoch = images // plan.batch
            epochs = extended.step / per_epoch, (extended.total or extended.step) / per_epoch
            terminal.say(console, describe_schedules(extended, warmup, plan.lr, learner.method, epochs), "Length")
        if rank() == 0:
            directory.keep_length(run, length, extended.extensions)
    display = TrainingDisplay(console, plan.batch * plan.views)
    with display.bar:
        stopped = train(learner, plan, data, length, run, state, display, fabric)
    if replaced := read_unreadable(run):
        text = f"{len(replaced):,} images could not be read and were replaced by others; {run / UNREADABLE} lists them:"
        terminal.show_skipped(console, text, replaced)
    return data, stopped


def show_plan(
    console: Console,
    plan: Plan,
    length: Length,
    images: int,
    step_seconds: float,
    run: Path,
    state: dict[str, Any] | None,
) -> None:
    """Prints the plan of the run and an estimate of its time."""
    config = plan.config
    steps = length.steps(batch=plan.batch, images=images)
    shape = " + ".join(f"{g.count} of {g.size}x{g.size}" for g in plan.recipe)
    shape += "".join(f", after {s}x{s}" for s in reversed(config.progressive))
    names = {"64": "float64", "32": "float32", "tf32": "float32, products in TF32", "fp16": "float16 autocast"}
    precision = names.get(plan.precision, "bfloat16 autocast")
    fitting = round(length.amount * 60 / max(step_seconds, 1e-9)) if steps is None else steps
    epochs = "" if steps is not None else f", {fitting * plan.batch / images:.2g} epochs"
    amount = f"{fitting:,} steps{epochs}"
    done, past = (state["step"], state["seconds"]) if state else (0, 0.0)
    left = length.amount * 60 - past if steps is None else (steps - done) * step_seconds
    about = terminal.duration(max(0.0, left)) + (" to go" if state else "")
    method = find_method(config.method)
    if method.trains:
        given = "" if plan.batch == 256 else f" (--lr {config.lr:g} for a batch of 256)"
        how = f"{config.optimizer}, batch {plan.batch}, learning rate {plan.lr:g}{given}"
        long = f"{length}: {amount}, about {about} at the {step_seconds:.2f} s per step just measured"
    else:
        how, long = "nothing is trained", "one pass over the images for statistics of batch norms"
    net = f"{plan.spec.title}, {plan.spec.features} features, evaluated at {plan.spec.size}x{plan.spec.size}"
    terminal.say(console, f"{escape(config.method)}, views {shape}; {escape(net)}; {how}", "Plan")
    terminal.say(console, f"{plan.device}, {precision}; {long}")
    notes = [plan.resized, left_out(plan.recipe, plan.spec.channels)]
    if method.eigenvalues and plan.device.type != "cpu":
        notes.append(f"{config.method} takes eigenvalues, for which every step waits for {plan.device}")
    for note in filter(None, notes):
        terminal.say(console, escape(note))
    again = f", going on from step {done:,}" if state else ""
    terminal.say(console, f"{escape(str(run))}{again}; Ctrl-C saves and stops", "Run")


def tell_differences(console: Console, then: dict[str, str]) -> None:
    """Warns of differences to the environment of the checkpoint, with which the run is not bit-identical."""
    now = environment()
    differences = [f"{k} was {then.get(k)}, is {now.get(k)}" for k in then | now if then.get(k) != now.get(k)]
    if differences:
        terminal.warn(console, f"Not bit for bit the same run from here on: {'; '.join(differences)}")
