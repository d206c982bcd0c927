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

from frossl.core.distributed import (
    broadcast_object,
    limit_waits,
    rank,
    run_on_rank_zero,
    run_with_heartbeat,
    world_size,
)
from frossl.core.files import write_text
from frossl.core.length import Length
from frossl.core.machine import environment
from frossl.core.types import UserError
from frossl.data import Dataset
from frossl.evals.suite import Evaluation
from frossl.methods import find_method
from frossl.nn.encoder import save_encoder
from frossl.report import terminal
from frossl.report.page import write_report
from frossl.report.terminal import logged
from frossl.runs.checkpoint import ended_before_a_save, load_checkpoint, load_newest
from frossl.runs.config import Config
from frossl.runs.data import for_training, keep_whereabouts, open_data_of
from frossl.runs.directory import (
    LOG,
    alone_in,
    begun_run,
    continued,
    keep_length,
    new_run_directory,
    refuse_begun,
    refuse_differences,
    require_own,
    resume_command,
    worth_keeping,
)
from frossl.runs.encoders import START_FILE, start_weights
from frossl.runs.log import require_wandb
from frossl.runs.unreadable import UNREADABLE, read_unreadable
from frossl.train.display import TrainingDisplay
from frossl.train.evaluate import check_scale, evaluate_run
from frossl.train.loop import build, train
from frossl.train.memory import fit
from frossl.train.plan import Plan, describe
from frossl.train.ranks import joined, open_together
from frossl.train.schedule import describe_schedules, go_on_to, resolve_length, schedule
from frossl.views.recipes import left_out

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Where a run is, the signal that stopped it if one did, and its evaluation if there was one."""

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
    """Pretrains as ``config`` says and evaluates; ``resume`` goes on with the newest checkpoint of that run, or begins
    it again if it ended before its first save; with "auto" it is the run of the configuration's name, if that began.

    ``backbone`` is any module that maps ``(B, C, H, W)`` to ``(B, F)``, trained in place of ``config.backbone`` from
    the weights it has; to resume, give one of the same architecture. Sub-modules that are in eval mode while it is in
    train mode stay so; in eval mode as a whole, it is trained as a whole. The run of a module that timm builds alike by
    name, without options or with ``config.backbone_options``, is a run of that name, which commands can resume,
    evaluate and export. Their untrained control has random weights from the seed of the run; that of this function is
    ``backbone`` as it was given. ``data`` are those of ``config``, where the caller has them open. Without ``report``
    none is written at the end.

    Raises:
        UserError: something that was asked for cannot be done; says what to do.
        NonFiniteError: the loss or its gradient is not a number.
    """
    console = console or Console(quiet=True)
    again = resume == "auto"
    if again:
        resume = begun_run(config)
    if resume is not None:
        resume = Path(resume)
        config = continued(resume, config, own=backbone is not None)
    if config.wandb:
        require_wandb()
    with joined(config) as fabric, ExitStack() as held:
        if rank() > 0:
            console = Console(quiet=True)
        mine = resume, *(getattr(config, name) for name in ALIKE)
        first = broadcast_object(mine)
        run_with_heartbeat(lambda: _require_alike(first, mine))
        run = resume or broadcast_object(run_on_rank_zero(lambda: new_run_directory(config, again)))
        assert run is not None

        def enter() -> None:
            held.enter_context(alone_in(run))
            if resume is None:
                refuse_begun(run)  # by another process while this one waited
            held.enter_context(logged(console, run / LOG))

        run_on_rank_zero(enter)
        return _pretrain_in(run, config, resume is not None, backbone, data, report, console, fabric)


ALIKE = ("monitor_every", "checkpoint_every", "log_every", "telemetry_every", "track_eigenvalues", "length")
"""Options that say when ranks meet, and which a resumed run may change."""


def _require_alike(first: tuple[Any, ...], here: tuple[Any, ...]) -> None:
    """Raises UserError where this rank would not do what the first does, which would wait for it for ever."""
    if here != first:
        raise UserError(
            f"rank {rank()} would go on with {here[0] or 'nothing'}, the first rank with {first[0] or 'nothing'}, or "
            f"their options differ ({', '.join(ALIKE)}): give all ranks the same command. If they have it, their "
            "machines see a shared disk differently for a moment: start them again"
        )


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
    """Trains, evaluates and reports in the directory ``run``, which is removed if it comes to nothing."""
    untrained = copy.deepcopy(backbone)
    state = None
    try:
        if resumed:
            require_own(run, backbone)
            state = _newest_state(run, console)
        data, stopped = train_run(config, run, state, backbone, data, console, fabric)
    except BaseException as error:
        if rank() == 0 and not resumed and not worth_keeping(run):
            shutil.rmtree(run, ignore_errors=True)
        if world_size() > 1:
            error.add_note(f"This was rank {rank()} of {world_size()}. If another died or was stopped, that is why.")
        raise
    if stopped:
        terminal.warn(console, f"Stopped by {stopped}; saved. Go on with: {resume_command(run)}")
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
    """What the newest whole checkpoint holds, the same on all ranks; None before the first save."""
    begun = not ended_before_a_save(run)
    if not begun:
        terminal.warn(console, f"{run} ended before its first save and begins again")
    found = run_on_rank_zero(lambda: load_newest(run, partial(terminal.warn, console)) if begun else None)
    path = broadcast_object(found[0] if found else None)
    return found[1] if found else load_checkpoint(path) if path else None


def train_run(
    config: Config,
    run: Path,
    state: dict[str, Any] | None,
    backbone: nn.Module | None,
    given: Dataset | None,
    console: Console,
    fabric: Fabric,
) -> tuple[Dataset, str | None]:
    """From configuration to trained encoder in ``run``; gives the data and the signal that stopped it, if any."""

    def opened() -> Dataset:
        return for_training(config, open_data_of(run, config, terminal.detail(console)) if given is None else given)

    begin = start_weights(config, run, terminal.detail(console))
    if begin is not None and begin[1].range and config.range is None:
        config = dataclasses.replace(config, range=begin[1].range)
    data = open_together(opened)
    if begin is not None:
        check_scale(data, begin[1])
    learner, plan = build(config, data, backbone, begin, terminal.detail(console))
    terminal.show_data(console, data)
    counts = {"batch": plan.batch, "images": len(data.train)}
    seconds, extended = 0.0, None
    if state is not None:
        tell_differences(console, state["environment"])
        refuse_differences(run, describe(plan, Length.parse(config.length), data), data)
        extended = go_on_to(state, Length.parse(config.length), **counts)
    if learner.method.trains:
        seconds, plan = fit(learner, plan, data, fabric, lambda text: terminal.say(console, text))
    limit_waits(config.stall_timeout)
    length = Length.parse(state["length"]) if state else resolve_length(plan, len(data.train), seconds)
    show_plan(console, plan, length, len(data.train), seconds, run, state)

    def write() -> None:
        if begin is not None:
            save_encoder(run / START_FILE, learner.backbone, plan.spec)
        write_text(run / "config.json", json.dumps(describe(plan, length, data), indent=2) + "\n")
        keep_whereabouts(run, config, data)

    if state is None:
        run_on_rank_zero(write)  # the others read the start of the run
    if extended is not None:
        warmup, steps = schedule(plan, extended, len(data.train))[2], len(data.train) // plan.batch
        epochs = extended.step / steps, (extended.total or extended.step) / steps
        if learner.method.trains:
            terminal.say(console, describe_schedules(extended, warmup, plan.lr, learner.method, epochs), "Length")
        if rank() == 0:
            keep_length(run, length, extended.extensions)
    display = TrainingDisplay(console, plan.batch * plan.views)
    with display.bar:
        stopped = train(learner, plan, data, length, run, state, display, fabric)
    if replaced := read_unreadable(run):
        said = f"{len(replaced):,} images could not be read and were replaced by others; {run / UNREADABLE} lists them:"
        terminal.show_skipped(console, said, replaced)
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
    """What will be done, and about how long it will take."""
    config = plan.config
    steps = length.steps(batch=plan.batch, images=images)
    shape = " + ".join(f"{g.count} of {g.size}x{g.size}" for g in plan.recipe)
    names = {"64": "float64", "32": "float32", "tf32": "float32, products in TF32", "fp16": "float16 autocast"}
    precision = names.get(plan.precision, "bfloat16 autocast")
    amount = f"{steps:,} steps" if steps is not None else "as many steps as fit"
    done, gone = (state["step"], state["seconds"]) if state else (0, 0.0)
    left = length.amount * 60 - gone if steps is None else (steps - done) * step_seconds
    about = terminal.duration(max(0.0, left)) + (" to go" if state else "")
    if find_method(config.method).trains:
        how = f"{config.optimizer}, batch {plan.batch}, learning rate {plan.lr:g}"
        long = f"{length}: {amount}, about {about} at the {step_seconds:.2f} s per step just measured"
    else:
        how, long = "nothing is trained", "one pass over the images for statistics of batch norms"
    net = f"{plan.spec.title}, {plan.spec.features} features, evaluated at {plan.spec.size}x{plan.spec.size}"
    terminal.say(console, f"{escape(config.method)}, views {shape}; {escape(net)}; {how}", "Plan")
    terminal.say(console, f"{plan.device}, {precision}; {long}")
    waits = find_method(config.method).eigenvalues and plan.device.type != "cpu"
    waiting = f"{config.method} takes eigenvalues, for which every step waits for {plan.device}" if waits else ""
    for note in (plan.resized, left_out(plan.recipe, plan.spec.channels), waiting):
        if note:
            terminal.say(console, escape(note))
    again = f", going on from step {state['step']:,}" if state else ""
    terminal.say(console, f"{escape(str(run))}{again}; Ctrl-C saves and stops", "Run")


def tell_differences(console: Console, then: dict[str, str]) -> None:
    """Says in what this machine differs from the one that saved; the run goes on, but not bit for bit."""
    now = environment()
    names = {**then, **now}  # of an accelerator there are some more
    differences = [f"{k} was {then.get(k)}, is {now.get(k)}" for k in names if then.get(k) != now.get(k)]
    if differences:
        terminal.warn(console, f"Not bit for bit the same run from here on: {'; '.join(differences)}")
