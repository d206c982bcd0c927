"""The training loop, from a configuration to a run directory. Read :func:`train` first."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from frossl.core.axes import over_views
from frossl.core.length import Length
from frossl.core.types import Loss, Moment, Setting, UserError
from frossl.data.loader import training_batches
from frossl.data.types import Dataset
from frossl.evals.extract import Extractor
from frossl.methods import Method, find_method
from frossl.nn.backbones import feature_width
from frossl.nn.ema import follow, frozen_copy
from frossl.nn.encoder import save_encoder
from frossl.nn.optim import build_optimizer, warmup_cosine
from frossl.train.checkpoint import random_state, save_checkpoint, set_random_state
from frossl.train.config import Config, Plan
from frossl.train.log import RunLog
from frossl.train.probe import OnlineProbe, look
from frossl.train.telemetry import Telemetry, context_of, picture_of_views

AUTO_EPOCHS, AUTO_MINUTES = 100, 30


class NonFiniteError(RuntimeError):
    """The loss or its gradient is not a number; nothing was updated and the last checkpoint stands."""


class Learner(nn.Module):
    """Backbone and method as the one module that is trained, and the averaged backbone of methods that have one."""

    def __init__(self, backbone: nn.Module, method: Method) -> None:
        super().__init__()
        self.backbone, self.method = backbone, method
        self.target = None if method.momentum(0.0) is None else frozen_copy(backbone)
        self.loss: Loss | None = None

    def forward(
        self, views: list[Tensor], share: float = 0.0, epoch: float = 0.0, labels_N: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Views ``(V, N, C, S, S)`` by resolution, largest first, to loss, its terms and features ``(V, N, F)``."""
        h_VNF = torch.cat([self.encode(self.backbone, x) for x in views])
        target_VNF = None
        if self.target is not None:
            with torch.no_grad():
                target_VNF = self.encode(self.target, views[0])
        labels_N = labels_N.to(h_VNF.device) if labels_N is not None and self.method.uses_labels else None
        loss: Loss = self.method(h_VNF, Moment(share=share, epoch=epoch, target_VNF=target_VNF, labels_N=labels_N))
        self.loss = loss
        return loss.total, loss.terms, h_VNF

    def encode(self, network: nn.Module, x_VNCHW: Tensor) -> Tensor:
        """Features ``(V, N, F)``."""
        return over_views(
            lambda x: network(x.to(memory_format=torch.channels_last)), x_VNCHW, self.method.setting.joint
        )

    def remember(self, share: float) -> None:
        """After a good step: the method's new state takes effect, and averaged networks follow the trained ones."""
        assert self.loss is not None
        self.method.commit(self.loss)
        self.loss = None
        keep = self.method.momentum(share)
        if keep is not None and self.target is not None:
            follow(self.target, self.backbone, keep)
            for target, online in self.method.averaged.items():
                follow(getattr(self.method, target), getattr(self.method, online), keep)

    def optimizer(self, config: Config, plan: Plan) -> torch.optim.Optimizer:
        """The optimiser of everything that is trained."""
        steady = [getattr(self.method, name) for name in self.method.steady]
        return build_optimizer(config.optimizer, [self], lr=plan.lr, weight_decay=config.weight_decay, steady=steady)


@dataclasses.dataclass
class Progress:
    """Where a run is. ``seconds`` counts time spent in the loop, over all resumptions."""

    length: Length
    total: int | None
    step: int = 0
    seconds: float = 0.0

    @property
    def share(self) -> float:
        """0 to 1 of the run, by steps, or by the clock for a length in minutes."""
        done = self.seconds / (60 * self.length.amount) if self.total is None else self.step / max(self.total, 1)
        return min(done, 1.0)


class Every:
    """Says when something is due: each ``text`` of a run, by steps, by share or by the clock."""

    def __init__(self, text: str, progress: Progress, batch: int, images: int) -> None:
        length = Length.parse(text)
        self.progress, self.minutes = progress, length.unit == "min"
        self.period = 60 * length.amount if self.minutes else length.share(progress.length, batch=batch, images=images)
        self.count = self._now()

    def _now(self) -> int:
        at = self.progress.seconds if self.minutes else self.progress.share
        return math.floor(at / self.period + 1e-9) if self.period else 0

    def due(self) -> bool:
        before, self.count = self.count, self._now()
        return self.count > before


def build(config: Config, plan: Plan, classes: int = 0, own: nn.Module | None = None) -> tuple[Learner, Plan]:
    """The modules of a run from its seed, around the encoder ``own`` if given; the plan gets the encoder's width.

    Raises:
        UserError: a supervised method and no ``classes``.
    """
    kind = find_method(config.method)
    if kind.uses_labels and not classes:
        raise UserError(f"--method {config.method} learns from labels, and these data have none in one of their splits")
    torch.manual_seed(config.seed)
    backbone = plan.spec.build() if own is None else own
    width = feature_width(backbone, plan.spec.channels, plan.spec.size)
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


def measure_step(learner: Learner, config: Config, plan: Plan, data: Dataset) -> float:
    """Seconds of one training step, from three on a copy that is thrown away; the first two warm up."""
    with torch.random.fork_rng():
        copied = copy.deepcopy(learner).to(plan.device)
        optimizer = copied.optimizer(config, plan)
        bf16 = plan.precision == "bf16-mixed"
        started = 0.0
        batches = training_batches(
            data, plan.recipe, batch=plan.batch, seed=config.seed, workers=plan.workers, device=plan.device
        )
        for step, batch in zip(range(3), batches, strict=False):
            with torch.autocast(plan.device.type, torch.bfloat16, enabled=bf16):
                total, _, _ = copied(batch.views, labels_N=batch.labels_N)
            total.backward()
            optimizer.step()
            total.item()  # waits for the device
            if step == 1:
                started = time.perf_counter()
        return time.perf_counter() - started


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
) -> str | None:
    """Trains ``learner`` in place and fills the run directory. Returns the name of the signal that stopped it, if any.

    Raises:
        NonFiniteError: names the step and the term.
    """
    images = len(data.train)
    learner.to(plan.device, torch.float64 if plan.precision == "64-true" else None)
    progress = Progress(length, length.steps(batch=plan.batch, images=images))
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the plan has said all of that
    fabric = Fabric(accelerator=plan.device.type, devices=1, precision=plan.precision)  # type: ignore[arg-type]
    plain_optimizer = learner.optimizer(config, plan)
    probe = OnlineProbe(plan.spec.features, len(data.classes)).to(plan.device) if data.classes else None
    track = Length.parse(config.track_eigenvalues or "0it").steps(batch=plan.batch, images=images)
    telemetry = Telemetry(learner.method, context_of(config, plan), config.telemetry_every, track or 0)
    if resume is not None:
        progress.step, progress.seconds = resume["step"], resume["seconds"]
        restore(resume, learner, plain_optimizer, probe)
    model, optimizer = fabric.setup(learner, plain_optimizer)
    extractor = Extractor(device=plan.device, bf16=plan.precision == "bf16-mixed", workers=plan.workers)
    monitor = Every(config.monitor_every, progress, plan.batch, images)
    checkpoint = Every(config.checkpoint_every, progress, plan.batch, images)
    warmup = Length.parse(config.warmup).share(length, batch=plan.batch, images=images)

    def save() -> None:
        state = snapshot(progress, learner, plain_optimizer, probe) | {"telemetry": telemetry.kept}
        save_checkpoint(run / "checkpoints", progress.step, state)

    def where() -> dict[str, float]:
        seen = progress.step * plan.batch
        epoch = progress.step / (images // plan.batch)
        return {"epoch": round(epoch, 4), "images": seen, "seconds": round(progress.seconds, 3)}

    learner.train()
    batches = training_batches(
        data,
        plan.recipe,
        batch=plan.batch,
        seed=config.seed,
        first_step=progress.step,
        workers=plan.workers,
        device=plan.device,
    )
    shown: dict[str, float] = {}
    clock = time.perf_counter()
    with closing(RunLog(run, progress.step, config.wandb)) as log, stop_signals() as stopped:
        if resume is not None:
            telemetry.restore(resume.get("telemetry", {}), log.history)
        if progress.step == 0:
            log.picture("views", picture_of_views(data, plan.recipe, config.seed), 0)
        while learner.method.trains and progress.share < 1 and not stopped:
            batch = next(batches)
            set_lr(plain_optimizer, plan.lr, progress.share, warmup)
            total, terms, h_VNF = model(batch.views, progress.share, where()["epoch"], batch.labels_N)
            optimizer.zero_grad()
            fabric.backward(total)
            norm = gradient_norm(learner, config.clip)
            check_finite(progress.step, total, terms, norm)
            telemetry.see(progress.step + 1, h_VNF, {"loss": total, **terms, "grad_norm": norm})
            optimizer.step()
            learner.remember(progress.share)
            on_views = None if probe is None or batch.labels_N is None else probe.learn(h_VNF, batch.labels_N)
            progress.step += 1
            progress.seconds, clock = progress.seconds + time.perf_counter() - clock, time.perf_counter()

            if progress.step % config.log_every == 0 or progress.step == 1:
                values = {"loss": total.item(), **{k: v.item() for k, v in terms.items()}, "grad_norm": norm.item()}
                values["lr"] = plain_optimizer.param_groups[0]["lr"]
                if on_views is not None and not on_views.isnan():
                    values["probe_on_views"] = on_views.item()
                log.row("train", progress.step, where(), values)
                shown |= values
            if monitor.due():
                values, held_out_NF = look(learner.backbone, data, plan.spec, extractor, probe)
                telemetry.held_out(held_out_NF)
                progress.seconds, clock = progress.seconds + time.perf_counter() - clock, time.perf_counter()
                log.row("monitor", progress.step, where(), values)
                shown |= values
            for kind, values in telemetry.take():
                log.row(kind, progress.step, where(), values)
                if kind == "health":
                    tell(progress.step, values)
            if checkpoint.due():
                save()
            show(progress, shown)
    if not learner.method.trains:
        extractor.settle_batch_norm(learner.backbone, data.train, plan.spec)
    save()
    save_encoder(run / "encoder.safetensors", learner.backbone, plan.spec)
    return stopped[0] if stopped else None


def set_lr(optimizer: torch.optim.Optimizer, peak: float, share: float, warmup: float) -> None:
    """The learning rate at ``share`` of the run; groups that are steady stay at the peak."""
    lr = peak * warmup_cosine(share, warmup)
    for group in optimizer.param_groups:
        group["lr"] = peak if group["steady"] else lr


def gradient_norm(module: nn.Module, clip: float | None) -> Tensor:
    """L2 norm of all gradients, which are scaled down to ``clip`` if that is given and exceeded."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if clip is not None:
        torch.nn.utils.clip_grads_with_norm_(module.parameters(), clip, norm)
    return norm


def check_finite(step: int, total: Tensor, terms: dict[str, Tensor], norm: Tensor) -> None:
    """Raises if the loss or its gradient is not finite."""
    if bool(torch.isfinite(total)) and bool(torch.isfinite(norm)):
        return
    bad = [name for name, value in terms.items() if not bool(torch.isfinite(value))]
    what = f"the {' and '.join(bad)} term of the loss is" if bad else "the gradient of the loss is"
    raise NonFiniteError(
        f"step {step}: {what} not finite ({', '.join(f'{k} {v.item():.4g}' for k, v in terms.items())}, gradient norm "
        f"{norm.item():.4g}). Nothing was updated; the last checkpoint, if any, stands. Try a lower --lr, a longer "
        "--warmup, --clip 1, or --precision 32."
    )


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
    }


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
    if probe is not None:
        probe.load_state_dict(state["probe"][0])
        probe.optimizer.load_state_dict(state["probe"][1])
    set_random_state(state["random"])


def environment() -> dict[str, str]:
    """What bit-identity depends on besides the configuration."""
    return {"torch": torch.__version__, "threads": str(torch.get_num_threads()), "views": "eager"}


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Collects the first Ctrl-C or termination request in the list that it gives; a second one is obeyed at once."""
    received: list[str] = []

    def receive(number: int, frame: Any) -> None:
        received.append(signal.Signals(number).name)
        for n, handler in before.items():
            signal.signal(n, handler)

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
