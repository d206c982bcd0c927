"""The training loop, from a configuration to a run directory. Read :func:`train` first."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from frossl.core.distributed import largest, on_first_rank, rank, world_size
from frossl.core.files import write_text
from frossl.core.length import Length
from frossl.core.machine import environment
from frossl.core.progress import Every, Progress
from frossl.core.types import Setting, UserError
from frossl.data.loader import Batch, batch_index, training_batches
from frossl.data.types import Dataset
from frossl.evals.extract import Extractor
from frossl.methods import find_method
from frossl.nn.encoder import save_encoder
from frossl.nn.optim import start_momentum, warmup_cosine
from frossl.nn.output import feature_width, trains
from frossl.runs.checkpoint import keep_as_best, random_state, save_checkpoint, set_random_state
from frossl.runs.config import Config
from frossl.runs.directory import FAILED
from frossl.runs.log import NoLog, RunLog
from frossl.train.learner import Learner
from frossl.train.plan import Plan
from frossl.train.probe import OnlineProbe, look
from frossl.train.ranks import start
from frossl.train.step import NonFiniteError, Stepper
from frossl.train.telemetry import Telemetry, context_of, picture_of_views

if TYPE_CHECKING:
    from lightning_fabric import Fabric

AUTO_EPOCHS, AUTO_MINUTES = 100, 30
REPEATS = 10.0


def build(config: Config, plan: Plan, classes: int = 0, own: nn.Module | None = None) -> tuple[Learner, Plan]:
    """The modules of a run from its seed, around the encoder ``own`` if given; the plan gets the encoder's width.

    Raises:
        UserError: a supervised method and no ``classes``, or an encoder that does not return ``(B, F)`` or has nothing
            to train.
    """
    kind = find_method(config.method)
    if kind.uses_labels and not classes:
        raise UserError(f"--method {config.method} learns from labels, and these data have none in one of their splits")
    torch.manual_seed(config.seed)
    backbone = plan.spec.build() if own is None else own
    images = plan.spec.channels, plan.spec.size
    width = feature_width(backbone, *images)
    if not trains(backbone, *images, width, plan.device) and kind.trains:
        raise UserError(
            "no parameter of the encoder would be trained: its features require no gradient. Call requires_grad_(True) "
            "on what is to learn, or measure the encoder as it is with --method random"
        )
    plan = dataclasses.replace(plan, spec=dataclasses.replace(plan.spec, features=width))
    large = max(group.size for group in plan.recipe)
    setting = Setting(
        features=width,
        views=plan.views,
        large=sum(group.count for group in plan.recipe if group.size == large),
        classes=classes,
        joint=config.batch_norm == "joint",
    )
    learner = Learner(backbone, kind(config.objective, setting))
    return learner.to(memory_format=torch.channels_last), plan  # type: ignore[call-overload]


def measure_step(learner: Learner, config: Config, plan: Plan, data: Dataset, fabric: Fabric) -> float:
    """Seconds of one training step, from three on a copy that is thrown away; the first two warm up."""
    with torch.random.fork_rng():
        take = Stepper(copy.deepcopy(learner), config, plan, fabric)
        started = 0.0
        for step, batch in zip(range(3), _batches(data, config, plan), strict=False):
            take(batch, step, 0.0, 0.0).total.item()  # waits for the device
            if step == 1:
                started = time.perf_counter()
        return largest(time.perf_counter() - started)[0]


def resolve_length(config: Config, plan: Plan, images: int, step_seconds: float) -> Length:
    """The length asked for; ``auto`` is 100 epochs, or as many whole ones as fit in 30 minutes, at least one."""
    if config.length != "auto":
        return Length.parse(config.length).as_images(plan.views)
    epoch_minutes = step_seconds * (images // plan.batch) / 60
    return Length(max(1, min(AUTO_EPOCHS, int(AUTO_MINUTES / max(epoch_minutes, 1e-9)))), "ep")


def train(
    learner: Learner,
    config: Config,
    plan: Plan,
    data: Dataset,
    length: Length,
    run: Path,
    resume: dict[str, Any] | None = None,
    show: Callable[[Progress, dict[str, float]], None] = lambda progress, values: None,
    tell: Callable[[int, dict[str, Any]], None] = lambda step, health: None,
    fabric: Fabric | None = None,
) -> str | None:
    """Trains ``learner`` in place and fills the run directory. Returns the name of the signal that stopped it, if any.

    With several ranks all of them call this, and the first alone writes.

    Raises:
        NonFiniteError: names the step and the term; the state before that step is left in the run directory.
        UserError: the disk is full or cannot be written to; the last checkpoint stands.
    """
    images = len(data.train)
    progress = Progress(length, length.steps(batch=plan.batch, images=images))
    fabric = fabric or start(config)
    probe = OnlineProbe(plan.spec.features, len(data.classes)).to(plan.device) if data.classes else None
    take = Stepper(learner, config, plan, fabric, probe)
    track = Length.parse(config.track_eigenvalues or "0it").steps(batch=plan.batch, images=images)
    telemetry = Telemetry(learner.method, context_of(config, plan), config.telemetry_every, track or 0)
    if resume is not None:
        progress.step, progress.seconds, progress.best = resume["step"], resume["seconds"], resume["best"]
        restore(resume, learner, take.optimizer, probe)
    extractor = Extractor(device=plan.device, bf16=plan.precision == "bf16", workers=plan.workers, over_ranks=True)
    monitor = Every("--monitor-every", config.monitor_every, progress, plan.batch, images)
    checkpoint = Every("--checkpoint-every", config.checkpoint_every, progress, plan.batch, images)
    warmup = Length.parse(config.warmup).share(length, batch=plan.batch, images=images, flag="--warmup")

    def save(best: bool = False) -> None:
        take.check()

        def write() -> None:
            log.flush()
            state = snapshot(progress, learner, take.optimizer, probe) | {"telemetry": telemetry.state()}
            path = save_checkpoint(run / "checkpoints", progress.step, state, config.keep_checkpoints)
            if best:
                keep_as_best(path)

        on_first_rank(write)

    def where() -> dict[str, float]:
        seen = progress.step * plan.batch
        epoch = progress.step / (images // plan.batch)
        return {"epoch": round(epoch, 4), "images": seen, "seconds": round(progress.seconds, 3)}

    def tick() -> None:
        nonlocal clock
        (progress.seconds,) = largest(progress.seconds + time.perf_counter() - clock)
        clock = time.perf_counter()

    learner.train()
    batches = _batches(data, config, plan, progress.step)
    shown: dict[str, float] = {}
    clock = time.perf_counter()
    rows = RunLog(run, progress.step, config.wandb) if rank() == 0 else NoLog()
    with closing(rows) as log, stop_signals() as stopped:
        if resume is not None:
            telemetry.restore(resume.get("telemetry", {}), log.history)
        if progress.step == 0:
            log.picture("views", picture_of_views(data, plan.recipe, config.seed), 0)
        try:
            while learner.method.trains and progress.share < 1 and not any(largest(len(stopped))):
                batch = next(batches)
                set_lr(take.optimizer, plan.lr, progress.share, warmup)
                taken = take(batch, progress.step, progress.share, where()["epoch"], telemetry.see)
                progress.step += 1
                tick()

                logged, looked = progress.step % config.log_every == 0 or progress.step == 1, monitor.due()
                if logged or looked:
                    take.check()
                    values = {"loss": taken.total.item(), **{k: v.item() for k, v in taken.terms.items()}}
                    values |= {"grad_norm": taken.norm.item(), "lr": take.optimizer.param_groups[0]["lr"]}
                    if taken.on_views is not None and not taken.on_views.isnan():
                        values["probe_on_views"] = taken.on_views.item()
                    shown |= values
                    if logged:
                        log.row("train", progress.step, where(), values)
                better = False
                if looked:
                    progress.looked = progress.step
                    values, held_out_NF = look(learner.backbone, data, plan.spec, extractor, probe)
                    telemetry.held_out(progress.step, held_out_NF, progress.share >= 1)
                    tick()
                    log.row("monitor", progress.step, where(), values)
                    shown |= values
                    score = values.get("knn")
                    better = score is not None and (progress.best is None or score > progress.best)
                    progress.best = score if better else progress.best
                for kind, values in telemetry.take():
                    log.row(kind, progress.step, where(), values)
                    if kind == "health":
                        tell(progress.step, values)
                if checkpoint.due() or better:
                    save(best=better)
                show(progress, shown)
            if not learner.method.trains:
                extractor.settle_batch_norm(learner.backbone, data.train, plan.spec)
            save()
        except NonFiniteError as error:
            progress.step = error.step
            epoch, index_N = batch_index(images, plan.batch, config.seed, error.step)
            found = NonFiniteError(error.step, error.values, index_N.tolist())
            on_first_rank(lambda: leave(run, found, epoch, snapshot(progress, learner, take.optimizer, probe)))
            raise found from None
        except UserError:
            if world_size() == 1:  # the state is that after the last whole step
                with suppress(UserError, NonFiniteError):
                    save()
            raise
    on_first_rank(lambda: save_encoder(run / "encoder.safetensors", learner.backbone, plan.spec))
    return (stopped or ["a signal to another rank"])[0] if any(largest(len(stopped))) else None


def _batches(data: Dataset, config: Config, plan: Plan, first_step: int = 0) -> Iterator[Batch]:
    """This rank's part of every batch."""
    return training_batches(
        data,
        plan.recipe,
        batch=plan.batch,
        seed=config.seed,
        first_step=first_step,
        workers=plan.workers,
        device=plan.device,
        rank=rank(),
        ranks=world_size(),
        compiled=config.compile_views,
    )


def set_lr(optimizer: torch.optim.Optimizer, peak: float, share: float, warmup: float) -> None:
    """The learning rate at ``share`` of the run; groups that are steady stay at the peak."""
    lr = peak * warmup_cosine(share, warmup)
    for group in optimizer.param_groups:
        group["lr"] = peak if group["steady"] else lr


def snapshot(
    progress: Progress, learner: Learner, optimizer: torch.optim.Optimizer, probe: OnlineProbe | None
) -> dict[str, Any]:
    """Everything that decides how the run goes on; the schedule is a function of the position."""
    return {
        "step": progress.step,
        "seconds": progress.seconds,
        "length": str(progress.length),
        "environment": environment(),
        "random": random_state(),
        "learner": learner.state_dict(),
        "optimizer": optimizer.state_dict(),
        "probe": None if probe is None else [probe.state_dict(), probe.optimizer.state_dict()],
        "best": progress.best,
    }


def leave(run: Path, error: NonFiniteError, epoch: int, state: dict[str, Any]) -> None:
    """Writes what ``frossl replay`` needs to take the bad step again."""
    path = save_checkpoint(run / FAILED, error.step, state, keep=1)
    values = {name: value if math.isfinite(value) else str(value) for name, value in error.values.items()}
    found = {"step": error.step, "epoch": epoch, "values": values, "images": error.images, "state": path.name}
    write_text(run / FAILED / "step.json", json.dumps(found, indent=2) + "\n")


def restore(
    state: dict[str, Any], learner: Learner, optimizer: torch.optim.Optimizer, probe: OnlineProbe | None
) -> None:
    """The inverse of :func:`snapshot`, for modules that were built alike."""
    learner.load_state_dict(state["learner"])
    optimizer.load_state_dict(state["optimizer"])
    for group in optimizer.param_groups:
        for p in group["params"]:
            for name, value in optimizer.state[p].items():
                if isinstance(value, Tensor) and value.shape == p.shape:  # in the memory format of the parameter
                    optimizer.state[p][name] = torch.empty_like(p).copy_(value)
    start_momentum(optimizer)
    if probe is not None:
        probe.load_state_dict(state["probe"][0])
        probe.optimizer.load_state_dict(state["probe"][1])
    set_random_state(state["random"])


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Collects the first Ctrl-C or termination request in the list that it gives; a second one is obeyed at once.

    With several ranks a second one counts after :data:`REPEATS` seconds, as torchrun passes on what ranks got already.
    """
    received: list[str] = []
    first = 0.0

    def receive(number: int, frame: Any) -> None:
        nonlocal first
        if not received:
            received.append(signal.Signals(number).name)
            first = time.monotonic()
        elif world_size() == 1 or time.monotonic() - first > REPEATS:
            for n, handler in before.items():
                signal.signal(n, handler)
            signal.raise_signal(number)

    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        for n in before:
            signal.signal(n, receive)
    except ValueError:  # not in the main thread, where there are no signals to take
        before = {}
    try:
        yield received
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
