"""The training loop, from a configuration to a run directory. Read :func:`train` first."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from torch import nn

from frossl.core.device import fork_random
from frossl.core.distributed import all_reduce_max, collect, rank, run_on_rank_zero, world_size
from frossl.core.files import write_text
from frossl.core.length import Length
from frossl.core.types import MethodSpec, UserError
from frossl.data.loader import Batch, batch_index, training_batches
from frossl.data.options import Log, quiet
from frossl.data.types import Dataset, Skipped
from frossl.evals.extract import EVALUATED, first, sample
from frossl.methods import find_method
from frossl.nn.encoder import EncoderSpec, save_encoder
from frossl.nn.modes import keep_batch_norms_in_eval
from frossl.nn.output import feature_width, trains
from frossl.nn.published import Start, build_with_weights
from frossl.runs.checkpoint import keep_as_best, save_checkpoint
from frossl.runs.config import Config
from frossl.runs.directory import ENCODERS, FAILED
from frossl.runs.log import NoLog, RunLog, Unreadable
from frossl.train.display import TrainingDisplay
from frossl.train.learner import Learner
from frossl.train.plan import Plan, make_plan, plan_by_name
from frossl.train.probe import measure_encoder
from frossl.train.ranks import start
from frossl.train.schedule import lr_factor, method_progress, recipe_at, schedule, set_lr, thaw
from frossl.train.signals import stop_signals
from frossl.train.start import StartWatch, start_of_run
from frossl.train.state import TrainingState, set_up
from frossl.train.step import NonFiniteError, Scalars, Stepper, measured
from frossl.train.telemetry import picture_of_views
from frossl.views.recipes import Recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def build(
    config: Config, data: Dataset, own: nn.Module | None = None, start: Start | None = None, log: Log = quiet
) -> tuple[Learner, Plan]:
    """The modules of a run on ``data`` from its seed, around the encoder ``own`` if given, and its plan.

    A module that timm builds alike by name is trained under that name. ``start`` are weights to begin with.

    Raises:
        UserError: a supervised method and no classes, or an encoder that does not return ``(B, F)`` or has nothing to
            train.
    """
    kind = find_method(config.method)
    if kind.uses_labels and not data.classes:
        why = "these data have none in one of their splits"
        if data.targets:
            why = f"these are {'values' if data.targets == 'values' else 'several an image'}; it needs classes"
        raise UserError(f"--method {config.method} learns from labels, and {why}")
    if own is not None and start is not None:
        raise UserError("--init starts from published weights and backbone= from those of a module: give one of them")
    named = None if own is None else plan_by_name(config, data, own)
    plan = named or make_plan(config, data, own, start[1] if start else None)
    torch.manual_seed(config.seed)
    backbone = (
        own if own is not None else build_with_weights(*start, plan.spec, log).train() if start else plan.spec.build()
    )
    if plan.config.batch_norm == "frozen":
        keep_batch_norms_in_eval(backbone)
    images = plan.spec.channels, plan.spec.size
    width = feature_width(backbone, *images)
    if not trains(backbone, *images, width, plan.device) and kind.trains:
        raise UserError(
            "no parameter of the encoder would be trained: its features require no gradient. Call requires_grad_(True) "
            "on what is to learn, or measure the encoder as it is with --method random"
        )
    plan = dataclasses.replace(plan, spec=dataclasses.replace(plan.spec, features=width))
    spec = MethodSpec(
        features=width,
        views=plan.views,
        large=sum(group.count for group in plan.recipe if group.size == plan.recipe[0].size),
        classes=len(data.classes),
        joint=plan.config.batch_norm != "per_view",
    )
    learner = Learner(backbone, kind(config.objective, spec))
    return learner.to(memory_format=torch.channels_last), plan  # type: ignore[call-overload]


def measure_step(learner: Learner, plan: Plan, data: Dataset, fabric: Fabric) -> float:
    """Seconds of one training step, from three on a copy that is thrown away; the first two warm up."""
    with fork_random(plan.device):
        stepper = Stepper(copy.deepcopy(learner), plan, fabric)
        started = 0.0
        for step, batch in zip(range(3), rank_batches(data, plan), strict=False):
            stepper(batch, step, 0.0, 0.0)["loss"].item()  # waits for the device
            if step == 1:
                started = time.perf_counter()
        return all_reduce_max(time.perf_counter() - started)[0]


def train(
    learner: Learner,
    plan: Plan,
    data: Dataset,
    length: Length,
    run: Path,
    saved: dict[str, Any] | None = None,
    display: TrainingDisplay | None = None,
    fabric: Fabric | None = None,
) -> str | None:
    """Trains ``learner`` in place and fills the run directory. Returns the name of the signal that stopped it, if any.

    ``saved`` is the state of a checkpoint to go on from. With several ranks all call this, and the first alone writes.

    Raises:
        NonFiniteError: names the step and the term; the state before that step is left in the run directory.
        UserError: the disk is full or cannot be written to; the last checkpoint stands.
    """
    display = display or TrainingDisplay(Console(quiet=True), 1)
    began = start_of_run(run)
    state = set_up(learner, plan, data, length, fabric or start(plan.config), saved, began)
    loop = _Loop(plan, data, run, state, display)
    if began is not None:
        loop.watch_start(began.to(plan.device))
    with closing(loop.log), stop_signals() as stopped:
        loop.stopped = stopped
        try:
            while learner.method.trains and loop.progress.fraction < 1 and not loop.stopping:
                output = loop.take_step()
                monitored = loop.monitor.due()
                loop.log_step(output, monitored)
                better = monitored and loop.measure()
                for kind, values in loop.telemetry.drain():
                    loop.row(kind, values)
                if loop.checkpoint.due() or better:
                    loop.save(best=better)
                loop.display.update(loop.progress, loop.shown)
            if not learner.method.trains:
                seen = first(data.train, EVALUATED)
                loop.extractor.each(lambda: loop.extractor.settle_batch_norm(learner.backbone, seen, plan.spec))
            loop.meet()
            loop.save()
        except NonFiniteError as error:
            raise loop.save_nonfinite_state(error) from None
        except UserError:
            if world_size() == 1:  # the state is that after the last whole step
                with suppress(UserError, NonFiniteError):
                    loop.save()
            raise
    run_on_rank_zero(lambda: _save_encoders(run, learner, plan.spec))
    return (stopped or ["a signal to another rank"])[0] if any(all_reduce_max(len(stopped))) else None


def _save_encoders(run: Path, learner: Learner, spec: EncoderSpec) -> None:
    """The trained encoder and, where the method has one, its moving average, each with its own buffers."""
    save_encoder(run / ENCODERS["online"], learner.backbone, spec)
    if learner.target is not None:
        save_encoder(run / ENCODERS["averaged"], learner.target, spec)


class _Loop:
    """The steps of :func:`train`: the state that is saved, the intervals, the log."""

    def __init__(self, plan: Plan, data: Dataset, run: Path, state: TrainingState, display: TrainingDisplay) -> None:
        self.plan, self.data, self.run, self.display = plan, data, run, display
        self.state, self.stepper, self.learner = state, state.stepper, state.stepper.learner
        self.config, self.progress, self.telemetry = plan.config, state.progress, state.telemetry
        self.first = step = self.progress.step
        self.unreadable = Unreadable(run, len(data.train))
        self.monitor, self.checkpoint, self.warmup, self.frozen = schedule(plan, self.progress, len(data.train))
        self.watch: StartWatch | None = None
        self.extractor = plan.extractor(over_ranks=True)
        how = {"extractor": self.extractor, "probe": self.stepper.probe, "with_ridge": self.config.monitor_ridge}
        self.measure_encoder = partial(measure_encoder, data=data, spec=plan.spec, **how)
        self.learner.train()
        self.recipe = recipe_at(plan, self.progress)
        self.batches = rank_batches(data, plan, step, self.recipe)
        self.shown: dict[str, float] = {}
        self.scheduled: dict[str, float] = {}
        self.rate = 0.0
        self.log = RunLog(run, step, self.config.wandb) if rank() == 0 else NoLog()
        self.telemetry.read_log(self.log.history)
        if step == 0:
            self.log.picture("views", picture_of_views(data, plan.recipe, self.config.seed), 0)
        self.clock = time.perf_counter()
        self.skipped: list[Skipped] = []
        self.stopped: list[str] = []
        self.stopping = False
        self.met = self.meeting = step

    @property
    def epoch(self) -> float:
        return round(self.progress.step / (len(self.data.train) // self.plan.batch), 4)

    def tick(self) -> float:
        """Adds the time since the last call, that of the slowest rank; returns the seconds so far."""
        (self.progress.seconds,) = all_reduce_max(self.progress.seconds + time.perf_counter() - self.clock)
        self.clock = time.perf_counter()
        return self.progress.seconds

    def meet(self) -> None:
        """Synchronises the clock, the decision to stop and the list of unreadable images over ranks.

        In one process after every step; else before every row of the log, and at least about once a second.
        """
        progress, began = self.progress, self.progress.seconds
        (stops,) = all_reduce_max(float(len(self.stopped)))
        self.stopping = stops > 0
        took = max(self.tick() - began, 1e-9)
        self.meeting = progress.step + max(1, int((progress.step - self.met) / took))
        self.met = progress.step
        if self.config.check == "on-read":  # otherwise all images were read at the start
            skipped, self.skipped = collect(self.skipped), []
            self.unreadable.add(skipped, (progress.step - self.first) * self.plan.batch)

    def take_step(self) -> Scalars:
        progress = self.progress
        if (recipe := recipe_at(self.plan, progress)) != self.recipe:
            self.recipe, self.batches = recipe, rank_batches(self.data, self.plan, progress.step, recipe)
        batch = next(self.batches)
        self.skipped += batch.skipped
        scheduled = method_progress(progress)
        factor = lr_factor(progress, self.warmup)
        self.rate = self.plan.lr * factor
        set_lr(self.stepper.optimizer, self.plan.lr, factor, thaw(progress, self.warmup, self.frozen))
        self.scheduled = self.learner.method.scheduled(scheduled, self.epoch)
        output = self.stepper(batch, progress.step, scheduled, self.epoch, self.telemetry.observe)
        progress.step += 1
        if world_size() == 1 or progress.step >= self.meeting or progress.step % self.config.log_every == 0:
            self.meet()
        return output

    def row(self, kind: str, values: dict[str, Any]) -> None:
        images, seconds = self.progress.step * self.plan.batch, round(self.progress.seconds, 3)
        where = {"epoch": self.epoch, "images": images, "seconds": seconds}
        self.log.row(kind, self.progress.step, where, values)
        if kind == "health":
            self.display.health(self.progress.step, values)

    def log_step(self, output: Scalars, monitored: bool) -> None:
        """Adds a row of the log where one is due; reads the step's values only then, or for the monitor's line."""
        due = self.progress.step % self.config.log_every == 0 or self.progress.step == 1
        if not (due or monitored):
            return
        self.stepper.check()
        values = measured(output) | {"lr": self.rate}
        self.shown |= values
        if due:
            self.row("train", values | self.scheduled)

    def measure(self) -> bool:
        """Adds the monitor's row; returns whether its kNN, balanced where classes are uneven, is the best so far."""
        progress = self.progress
        progress.monitored = progress.step
        began = self.tick()
        values, held_out_NF = self.measure_encoder(self.learner.backbone)
        self.telemetry.held_out(progress.step, held_out_NF, progress.fraction >= 1)
        took, found = self.tick() - began, None
        if self.watch is not None:
            values |= self.watch.compare(held_out_NF)
            found = self.watch.judge(values)
        self.row("monitor", values | {"look_seconds": round(took, 3)})
        if found:
            self.row("health", found)
        self.shown |= values
        score = values.get("knn_balanced", values.get("knn"))
        better = score is not None and (progress.best is None or score > progress.best)
        progress.best = score if better else progress.best
        return better

    def watch_start(self, encoder: nn.Module) -> None:
        """Measures the encoder that training began with, for comparison by the monitor; adds its row at step 0."""
        values, held_out_NF = self.measure_encoder(encoder)
        values.pop("probe", None)  # the probe was trained on other features, or not yet
        self.watch = StartWatch(values, held_out_NF, sample(self.data).test.labels, self.log.history)
        if self.progress.step == 0:
            self.row("monitor", values)
        self.clock = time.perf_counter()

    def save(self, best: bool = False) -> None:
        self.stepper.check()

        def write() -> None:
            self.log.flush()
            keep = self.config.keep_checkpoints
            path = save_checkpoint(self.run / "checkpoints", self.progress.step, self.state.state_dict(), keep)
            if best:
                keep_as_best(path)

        run_on_rank_zero(write)

    def save_nonfinite_state(self, error: NonFiniteError) -> NonFiniteError:
        """Writes what ``frossl replay`` needs to repeat the step; returns the error with the images of that step."""
        self.progress.step = error.step
        epoch, index_N = batch_index(len(self.data.train), self.plan.batch, self.config.seed, error.step)
        found = NonFiniteError(error.step, error.values, index_N.tolist())

        def write() -> None:
            path = save_checkpoint(self.run / FAILED, found.step, self.state.state_dict(), keep=1)
            values = {name: value if math.isfinite(value) else str(value) for name, value in found.values.items()}
            about = {"step": found.step, "epoch": epoch, "values": values, "images": found.images, "state": path.name}
            write_text(self.run / FAILED / "step.json", json.dumps(about, indent=2) + "\n")

        run_on_rank_zero(write)
        return found


def rank_batches(data: Dataset, plan: Plan, first_step: int = 0, recipe: Recipe | None = None) -> Iterator[Batch]:
    """This rank's part of every batch, as views of ``recipe`` or of that of ``plan``."""
    return training_batches(
        dataclasses.replace(data, mean=plan.spec.mean, std=plan.spec.std),  # of the start, if there is one
        recipe or plan.recipe,
        batch=plan.batch,
        seed=plan.config.seed,
        first_step=first_step,
        workers=plan.workers,
        device=plan.device,
        rank=rank(),
        ranks=world_size(),
        compiled=plan.config.compile_views,
        dtype=plan.view_dtype,
        own_stream=plan.config.cuda_extras,
    )
