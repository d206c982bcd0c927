"""``frossl bench``: where the time goes on this machine."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from statistics import median
from typing import Annotated, Any, TypeVar

import torch
import tyro
from rich.console import Console
from tyro.conf import subcommand

from frossl.core.machine import has_compiler
from frossl.core.types import UserError
from frossl.data import from_tensors
from frossl.data.options import DataOptions
from frossl.data.types import Dataset, Split
from frossl.losses import frossl
from frossl.report.table import Cell, Table, for_terminal
from frossl.runs.config import Config, Device
from frossl.runs.data import load_run_data
from frossl.train.loop import build, rank_batches
from frossl.train.plan import make_plan
from frossl.train.probe import measure_encoder
from frossl.train.ranks import start
from frossl.train.resources import device_of
from frossl.train.step import Stepper
from frossl.train.telemetry import Telemetry, context_of

T = TypeVar("T")
WARM_UP = 2
SHAPES = ((2, 256, 1024), (8, 256, 1024), (2, 1024, 2048), (8, 1024, 1024))
"""(V, N, D) of the objective."""
Rows = list[list[str]]


@dataclass(frozen=True, kw_only=True)
class BenchLoss:
    """Measure the objective forward and backward at several shapes, on this machine."""

    steps: int = 10
    """steps that are timed; the median counts"""
    device: Device = "auto"
    """where to compute"""


@dataclass(frozen=True, kw_only=True)
class BenchViews(BenchLoss, DataOptions):
    """Measure views a second, and decoding alone, on this machine."""

    data: str | None = None
    """images to measure with (noise of --size pixels if not given)"""
    size: int | None = None
    """side of the views in pixels (32, or as in frossl pretrain for --data)"""
    views: int | None = None
    """views per image (the recipe's number if not given)"""
    view_recipe: str = "imagenet-vicreg"
    """augmentation (frossl list recipes)"""
    batch: int = 128
    """images per step"""


@dataclass(frozen=True, kw_only=True)
class BenchTrain(BenchViews):
    """Measure a training step part by part, and what is done between steps, on this machine."""

    method: str = "frossl"
    """objective of the step (frossl list methods)"""
    backbone: str = "resnet18"
    """encoder: any timm model name"""
    compile_views: bool = False
    """views with compiled colours"""


def noise(images: int, size: int, classes: int = 10) -> Dataset:
    """Uniform noise in memory: what a step costs does not depend on what is in the images."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8, generator=generator)
    split = Split(pixels.contiguous(memory_format=torch.channels_last), torch.arange(images) % classes)
    return from_tensors(split, split, name="noise", classes=tuple(map(str, range(classes))))


def _open(given: BenchViews) -> tuple[Config, Dataset]:
    options = {name: value for name, value in vars(given).items() if name not in ("steps", "data")}
    config = Config(data=given.data or "noise", **options)
    return config, load_run_data(config) if given.data else noise(4 * given.batch, given.size or 32)


def _views(given: BenchViews) -> tuple[list[str], Rows]:
    """Views a second with eager and with compiled colours."""
    config, data = _open(given)
    rows = []
    for compiled in (False, True) if has_compiler() and device_of(config).type == "cpu" else (False,):
        plan = make_plan(replace(config, compile_views=compiled), data)
        try:
            first, *each = _seconds(partial(next, rank_batches(data, plan)), plan.device, 1 + given.steps)
        except UserError:
            if not compiled:
                raise
            rows.append(["compiled: the C++ compiler failed", "", ""])
            continue
        rate = plan.batch * plan.views / median(each)
        rows.append(["compiled" if compiled else "eager", f"{rate:,.0f}", f"{first:.1f}"])
    if not data.train.in_memory:
        rows.append(["decoding alone, images/s in one process", f"{1 / _decode_seconds(data):,.0f}", ""])
    return ["colours", "views/s", "first batch, s"], rows


def _train(given: BenchTrain) -> tuple[list[str], Rows]:
    """Milliseconds of a training step, of its parts, and of what is done between steps."""
    config, data = _open(given)
    learner, plan = build(config, data)
    device = plan.device
    stepper = Stepper(learner, plan, start(config))
    learner.train()
    parts: dict[str, list[float]] = defaultdict(list)
    timed = partial(_timed, device=device)
    views = timed(partial(next, rank_batches(data, plan)), parts["views"])
    stepper.model = timed(stepper.model, parts["forward"])  # type: ignore[assignment]
    stepper.fabric.backward = timed(stepper.fabric.backward, parts["backward"])  # type: ignore[method-assign]
    stepper.wrapped.step = timed(stepper.wrapped.step, parts["optimiser"])  # type: ignore[method-assign]
    features, numbers = [torch.empty(0)], count()

    def keep(step: int, h_VNF: torch.Tensor, values: dict[str, torch.Tensor]) -> None:
        features[0] = h_VNF.detach()

    def step() -> None:
        stepper(views(), next(numbers), 0.5, 1.0, keep)

    parts["step"] = _seconds(step, device, WARM_UP + given.steps)
    medians = {name: median(values[WARM_UP:]) for name, values in parts.items()}
    step_s = medians.pop("step")
    medians["the rest"] = max(0.0, step_s - sum(medians.values()))
    rows = [[name, f"{1e3 * value:,.1f}", f"{value / step_s:.0%}"] for name, value in medians.items()]
    rows.append(["step", f"{1e3 * step_s:,.1f}", f"{plan.batch / step_s:,.0f} images/s"])
    if not data.train.in_memory:
        one = _decode_seconds(data)
        rows.append(["decoding, in workers", f"{1e3 * one * plan.batch:,.1f}", f"{1 / one:,.0f} images/s and worker"])
    every = config.telemetry_every
    telemetry = Telemetry(learner.method, context_of(plan), every)
    between = {
        "telemetry, a spectrum": lambda: telemetry.observe(every, features[0], {"loss": torch.zeros(())}),
        "telemetry, the monitor": lambda: measure_encoder(learner.backbone, data, plan.spec, plan.extractor(), None),
    }
    for name, work in between.items():
        (once,) = _seconds(work, device)
        rows.append([name, f"{1e3 * once:,.1f}", f"{once / step_s:,.1f} steps"])
    return [f"{device}, {plan.precision}", "ms", "share"], rows


def _loss(given: BenchLoss) -> tuple[list[str], Rows]:
    device = device_of(Config(data="noise", device=given.device))
    rows = []
    for shape in SHAPES:
        z = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()

        work = partial(_forward_and_backward, z)
        each = _seconds(work, device, WARM_UP + given.steps)[WARM_UP:]
        rows.append([" x ".join(map(str, shape)), f"{1e3 * median(each):,.2f}"])
    return ["FroSSL, views x images x width", "forward and backward, ms"], rows


def _forward_and_backward(z: torch.Tensor) -> None:
    frossl(z, invariance_weight=1.4).total.backward()


def _decode_seconds(data: Dataset) -> float:
    """Seconds that one process takes to decode an image in full."""
    count = min(64, len(data.train))
    return _seconds(lambda: [data.train.images[i] for i in range(count)], torch.device("cpu"))[0] / count


def _seconds(work: Callable[[], object], device: torch.device, times: int = 1) -> list[float]:
    """Seconds of each of so many calls."""
    seconds: list[float] = []
    for _ in range(times):
        _timed(work, seconds, device)()
    return seconds


def _timed(work: Callable[..., T], seconds: list[float], device: torch.device) -> Callable[..., T]:
    """``work``, noting the seconds of each call, to the end of what it left to ``device``."""

    def run(*args: Any, **kwargs: Any) -> T:
        start = time.perf_counter()
        result = work(*args, **kwargs)
        getattr(torch, device.type).synchronize()
        seconds.append(time.perf_counter() - start)
        return result

    return run


MEASURED = {BenchViews: _views, BenchTrain: _train, BenchLoss: _loss}
Bench = (
    Annotated[BenchViews, subcommand("views")]
    | Annotated[BenchTrain, subcommand("train")]
    | Annotated[BenchLoss, subcommand("loss")]
)


def run(args: list[str], console: Console) -> int:
    given: Any = tyro.cli(Bench, prog="frossl bench", args=args)  # type: ignore[arg-type]
    if given.steps < 1:
        raise UserError(f"--steps must be at least 1, got {given.steps}")
    headings, rows = MEASURED[type(given)](given)
    console.print(for_terminal(Table("", headings, [list(map(Cell, row)) for row in rows])))
    return 0
