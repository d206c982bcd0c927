"""Where the time goes on this machine: views, a training step part by part, and the objective."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

import torch
import tyro
from rich.console import Console
from rich.table import Table

from frossl.core.types import UserError
from frossl.data.loader import training_batches
from frossl.data.options import DataOptions
from frossl.data.types import Dataset, Split
from frossl.losses import frossl
from frossl.runs.config import Config, Device
from frossl.runs.data import open_run_data
from frossl.train.loop import build
from frossl.train.plan import make_plan
from frossl.train.probe import look
from frossl.train.ranks import start
from frossl.train.step import Stepper
from frossl.train.telemetry import Telemetry, context_of
from frossl.views.colour import has_compiler

T = TypeVar("T")

WARM_UP = 2
SHAPES = ((2, 256, 1024), (8, 256, 1024), (2, 1024, 2048), (8, 1024, 1024))
"""(V, N, D) of the objective."""
Rows = list[list[str]]
_OF_STEPS = ("method", "backbone", "compile_views")
_OF_VIEWS = ("data", "size", "views", "view_recipe", "batch", *(field.name for field in fields(DataOptions)))
USELESS = {"views": _OF_STEPS, "train": (), "loss": (*_OF_VIEWS, *_OF_STEPS)}
"""Options that say nothing about what is measured."""


@dataclass(frozen=True, kw_only=True)
class Bench(DataOptions):
    """Measure the views, a training step part by part, or the objective, on this machine."""

    what: tyro.conf.Positional[Literal["views", "train", "loss"]]
    """what to measure"""
    data: str | None = None
    """images to measure with (noise of --size pixels if not given)"""
    size: int | None = None
    """side of the views in pixels (32, or as in frossl pretrain for --data)"""
    views: int | None = None
    """views per image (the recipe's number if not given)"""
    view_recipe: str = "imagenet-vicreg"
    """augmentation (frossl list recipes)"""
    method: str = "frossl"
    """objective of the step (frossl list methods)"""
    backbone: str = "resnet18"
    """encoder: any timm model name"""
    batch: int = 128
    """images per step"""
    steps: int = 10
    """steps that are timed; the median counts"""
    device: Device = "auto"
    """where to compute"""
    compile_views: bool = False
    """for train: views with compiled colours"""


def bench(given: Bench) -> tuple[list[str], Rows]:
    """Headings and rows of what was measured.

    Raises:
        UserError: something that was asked for cannot be done.
    """
    if given.steps < 1:
        raise UserError(f"--steps must be at least 1, got {given.steps}")
    defaults = Bench(what=given.what)
    useless = [name for name in USELESS[given.what] if getattr(given, name) != getattr(defaults, name)]
    if useless:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in useless)
        raise UserError(f"frossl bench {given.what} makes no use of {flags}; leave that out")
    return {"views": _views, "train": _train, "loss": _loss}[given.what](given)


def _opened(given: Bench) -> tuple[Config, Dataset]:
    names = ("size", "views", "view_recipe", "method", "backbone", "batch", "device", "compile_views")
    own = {name: getattr(given, name) for name in names}
    config = Config(data=given.data or "noise", **own, **given.data_options())
    return config, open_run_data(config) if given.data else noise(4 * given.batch, given.size or 32)


def noise(images: int, size: int, classes: int = 10) -> Dataset:
    """Uniform noise in memory: what a step costs does not depend on what is in the images."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8, generator=generator)
    split = Split(pixels.contiguous(memory_format=torch.channels_last), torch.arange(images) % classes)
    return Dataset(
        name="noise",
        train=split,
        test=split,
        classes=tuple(map(str, range(classes))),
        channels=3,
        mean=(0.5,) * 3,
        std=(0.29,) * 3,
        smallest=(size, size),
        largest=(size, size),
        typical=(size, size),
        source="uniform noise, seed 0",
    )


def _views(given: Bench) -> tuple[list[str], Rows]:
    config, data = _opened(given)
    plan = make_plan(config, data)
    rows = []
    for compiled in (False, True) if has_compiler() and plan.device.type == "cpu" else (False,):
        batches = training_batches(
            data,
            plan.recipe,
            batch=plan.batch,
            seed=config.seed,
            workers=plan.workers,
            device=plan.device,
            compiled=compiled,
        )
        try:
            first = _seconds(lambda batches=batches: next(batches), plan.device)
        except UserError:
            if not compiled:
                raise
            rows.append(["compiled: the C++ compiler failed", "", ""])
            continue
        each = [_seconds(lambda batches=batches: next(batches), plan.device) for _ in range(given.steps)]
        rate = plan.batch * plan.views / statistics.median(each)
        rows.append(["compiled" if compiled else "eager", f"{rate:,.0f}", f"{first:.1f}"])
    if not data.train.in_memory:
        rows.append(["decoding alone, images/s of one process", f"{1 / _decode_seconds(data):,.0f}", ""])
    return ["colours", "views/s", "first batch, s"], rows


def _train(given: Bench) -> tuple[list[str], Rows]:
    """Milliseconds of a training step, of its parts, and of what is done between steps."""
    config, data = _opened(given)
    learner, plan = build(config, data)
    device = plan.device
    take = Stepper(learner, plan, start(config))
    learner.train()
    batches = training_batches(
        data,
        plan.recipe,
        batch=plan.batch,
        seed=config.seed,
        workers=plan.workers,
        device=device,
        compiled=config.compile_views,
    )
    parts: dict[str, list[float]] = {}

    def timed(name: str, part: Callable[..., T]) -> Callable[..., T]:
        def run(*args: Any, **kwargs: Any) -> T:
            results = []
            parts.setdefault(name, []).append(_seconds(lambda: results.append(part(*args, **kwargs)), device))
            return results[0]

        return run

    made = timed("views", lambda: next(batches))
    take.model = timed("forward", take.model)  # type: ignore[assignment]
    take.fabric.backward = timed("backward", take.fabric.backward)  # type: ignore[method-assign]
    take.wrapped.step = timed("optimiser", take.wrapped.step)  # type: ignore[method-assign]
    features = torch.empty(0)

    def keep(step: int, h_VNF: torch.Tensor, values: dict[str, torch.Tensor]) -> None:
        nonlocal features
        features = h_VNF.detach()

    def step(number: int) -> None:
        take(made(), number, 0.5, 1.0, keep)

    whole = [_seconds(lambda n=n: step(n), device) for n in range(WARM_UP + given.steps)]
    middle = {name: statistics.median(values[WARM_UP:]) for name, values in {**parts, "step": whole}.items()}
    step_s = middle.pop("step")
    middle["the rest"] = max(0.0, step_s - sum(middle.values()))
    rows = [[name, f"{1e3 * value:,.1f}", f"{value / step_s:.0%}"] for name, value in middle.items()]
    rows.append(["step", f"{1e3 * step_s:,.1f}", f"{plan.batch / step_s:,.0f} images/s"])
    if not data.train.in_memory:
        one = _decode_seconds(data)
        rows.append(["decoding, in workers", f"{1e3 * one * plan.batch:,.1f}", f"{1 / one:,.0f} images/s and worker"])
    telemetry = Telemetry(learner.method, context_of(plan), config.telemetry_every)
    extractor = plan.extractor()
    for name, now_and_then in (
        (
            "telemetry, a spectrum",
            lambda: telemetry.observe(config.telemetry_every, features, {"loss": torch.zeros(())}),
        ),
        ("telemetry, the monitor", lambda: look(learner.backbone, data, plan.spec, extractor, None)),
    ):
        once = _seconds(now_and_then, device)
        rows.append([name, f"{1e3 * once:,.1f}", f"{once / step_s:,.1f} steps"])
    return [f"{device}, {plan.precision}", "ms", "share"], rows


def _decode_seconds(data: Dataset) -> float:
    """Seconds that one process takes to decode an image in full."""
    several = range(min(64, len(data.train)))
    return _seconds(lambda: [data.train.images[i] for i in several], torch.device("cpu")) / len(several)


def _loss(given: Bench) -> tuple[list[str], Rows]:
    device = make_plan(Config(data="noise", device=given.device), noise(8, 32)).device
    rows = []
    for shape in SHAPES:
        z = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()

        def both(z: torch.Tensor = z) -> None:
            frossl(z, invariance_weight=1.4).total.backward()

        each = [_seconds(both, device) for _ in range(WARM_UP + given.steps)][WARM_UP:]
        rows.append([" x ".join(map(str, shape)), f"{1e3 * statistics.median(each):,.2f}"])
    return ["FroSSL, views x images x width", "forward and backward, ms"], rows


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - start


def run(args: list[str], console: Console) -> int:
    given = tyro.cli(Bench, prog="frossl bench", args=args)
    table = Table(box=None, pad_edge=False, title=None)
    headings, rows = bench(given)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == headings[0] else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table, highlight=False)
    return 0
