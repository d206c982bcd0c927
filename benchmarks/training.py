"""Training runs of the benchmarks: what an encoder is worth after them, and what a step costs."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from common import Row, on_device, resident_mib
from frossl.commands.bench import noise
from frossl.core.length import Length
from frossl.core.progress import Progress
from frossl.core.types import StepContext
from frossl.data.arrays import from_tensors
from frossl.data.loader import training_batches
from frossl.data.types import Dataset
from frossl.evals import measure
from frossl.evals.extract import pixels, sample
from frossl.evals.linear import fewshot
from frossl.methods import METHODS
from frossl.nn.encoder import save_encoder
from frossl.recipes import RECIPES
from frossl.recipes.cpu import FOUND_FOR
from frossl.runs.config import Config
from frossl.runs.data import load_run_data
from frossl.runs.encoders import start_weights
from frossl.runs.log import read_rows
from frossl.train.display import TrainingDisplay
from frossl.train.loop import build, train
from frossl.train.plan import make_plan
from frossl.train.ranks import start
from frossl.train.step import Stepper

BEFORE_RECORD: dict[str, Any] = {"optimizer": "adamw", "lr": 4e-3, "objective": METHODS["frossl"].Config()}
"""What both recipes for two cores had before the record (docs/results/record.md); studies keep it, as do their rows."""
NEVER = "1e9min"
WARM_UP = 2
"""Steps before the clock counts."""


class Watch(TrainingDisplay):
    """Shows nothing, and gives where the run is and its newest numbers to ``see`` after every step."""

    def __init__(self, see: Callable[[Progress, dict[str, float]], None]) -> None:
        super().__init__(Console(quiet=True), 1)
        self.see = see

    def update(self, progress: Progress, values: dict[str, float]) -> None:
        self.see(progress, values)


def pretrain_and_evaluate(
    config: Config,
    threads: int,
    metrics: Sequence[str] = ("knn", "linear", "rank"),
    validation: float | None = None,
    draws: int = 0,
    data: Dataset | None = None,
    most: tuple[int, int] | None = None,
    save: Path | None = None,
    begin: Callable[[nn.Module, Dataset], None] | None = None,
    share: float = 1.0,
) -> Row:
    """Trains as ``config`` says, on ``data`` if given; what the encoder is worth, and the median time of a step.

    With ``most``, so many training and held-out images are evaluated on; with ``save``, the encoder goes there;
    ``begin`` may change its weights before the first step; trained is on a ``share`` of the training images.

    With ``validation``, this share of the training images is scored, on which the encoder was not trained, and nothing
    sees the held-out ones. With ``draws``, the probe on 10 labels per class is the mean over so many of them.
    """
    torch.set_num_threads(threads)
    config = dataclasses.replace(config, monitor_every=NEVER, checkpoint_every=NEVER)
    data = data or images_of(config, validation)
    learner, plan = build(config, data, start=start_weights(config))
    if begin is not None:
        begin(learner.backbone, data)
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory)
        some = data if share == 1 else sample(data, bank=round(share * len(data.train)))
        if train(learner, plan, some, Length.parse(config.length), run):
            raise KeyboardInterrupt
        path = run / "metrics.jsonl"
        log = list({row["step"]: row["seconds"] for row in (read_rows(path) if path.exists() else [])}.items())
    steps = [(b[1] - a[1]) / (b[0] - a[0]) * 1e3 for a, b in pairwise(log)]
    extractor = plan.extractor()
    if save is not None:
        save_encoder(save, learner.backbone, plan.spec)
    data = data if most is None else sample(data, *most)
    features = extractor.data(learner.backbone.eval(), data, plan.spec)
    return {
        **measure(features, list(metrics)),
        **(fewshot(features, draws=draws) if draws else {}),
        "held_out": len(data.test),
        "views": plan.views,
        "steps": log[-1][0] if log else 0,
        "step_ms": statistics.median(steps) if steps else None,
        "training_minutes": log[-1][1] / 60 if log else 0.0,
    }


def recipe_of_studies(name: str = "cifar10-cpu") -> Config:
    """The recipe ``name``, those for two cores as they were before the record."""
    config = RECIPES[name]()
    return dataclasses.replace(config, **BEFORE_RECORD) if name in FOUND_FOR else config


def images_of(config: Config, validation: float | None = None) -> Dataset:
    """The images of ``config``; with ``validation``, this share of its training images are the held-out ones."""
    data = load_run_data(config)
    if validation is None:
        return data
    return from_tensors(data.train, name=data.name, classes=data.classes, held_out=validation)


def measure_pixels(
    config: Config,
    threads: int,
    most: tuple[int, int] | None = None,
    draws: int = 0,
    data: Dataset | None = None,
    metrics: Sequence[str] = ("knn", "linear"),
) -> Row:
    """Metrics of :func:`pretrain_and_evaluate` for raw pixels, of ``data`` if given, else the images of ``config``."""
    torch.set_num_threads(threads)
    data = data or images_of(config)
    plan = make_plan(config, data)
    data = data if most is None else sample(data, *most)
    network, spec = pixels(plan.spec)
    features = plan.extractor().data(network, data, spec)
    few = fewshot(features, draws=draws) if draws else {}
    return {**measure(features, list(metrics)), **few, "held_out": len(data.test)}


def training_cost(config: Config, data: Dataset, steps: int, threads: int) -> Row:
    """Medians over ``steps`` of the time of a whole training step, and of its heads and objective alone.

    Views are made, the optimiser steps and averaged networks follow, as in training; frozen layers and queues are as
    late in a run. Times are those of :func:`on_device`. Memory is the peak over what the process had before there was a
    model: of the process, or, on CUDA, what PyTorch reserved on the device.
    """
    torch.set_num_threads(threads)
    before = resident_mib("VmRSS")
    learner, plan = build(config, data)
    stepper = Stepper(learner, plan, start(config))
    bf16 = plan.precision == "bf16"
    on_cuda = plan.device.type == "cuda"
    batches = training_batches(data, plan.recipe, batch=plan.batch, seed=config.seed, device=plan.device)
    whole = []
    for step in range(WARM_UP + steps):
        whole.append(1e3 * on_device(lambda step=step: stepper(next(batches), step, 0.5, 1e6), plan.device))
    batch = next(batches)
    peak = torch.cuda.max_memory_reserved() / 2**20 if on_cuda else resident_mib("VmHWM") - before
    with torch.no_grad(), torch.autocast(plan.device.type, torch.bfloat16, enabled=bf16):
        h_VNF = torch.cat([learner.encode(learner.backbone, x) for x in batch.views])
    target_VNF = None if learner.target is None else h_VNF[: learner.method.spec.large_views].detach()
    labels_N = None if batch.labels_N is None else batch.labels_N.to(plan.device)
    context = StepContext(progress=0.5, epoch=1e6, target_VNF=target_VNF, labels_N=labels_N)

    def heads_and_objective() -> None:
        with torch.autocast(plan.device.type, torch.bfloat16, enabled=bf16):
            loss = learner.method(h_VNF, context)
        loss.total.backward()

    alone = []
    for _ in range(WARM_UP + steps):
        h_VNF = h_VNF.detach().requires_grad_()
        learner.method.zero_grad()
        alone.append(1e3 * on_device(heads_and_objective, plan.device))
    return {
        "step_ms": statistics.median(whole[WARM_UP:]),
        "alone_ms": statistics.median(alone[WARM_UP:]),
        "peak_mib": peak,
        "precision": plan.precision,
        "device": plan.device.type,
    }


def cost_on_noise(config: Config, size: int, steps: int, threads: int) -> Row:
    """:func:`training_cost` on 2,048 images of noise."""
    return training_cost(config, noise(2048, size), steps, threads)
