"""What the benchmarks share: processes of their own, rows in JSON lines, tables, and what a training run is worth."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from rich.console import Console

from frossl.commands.bench import noise
from frossl.core.config import to_plain
from frossl.core.length import Length
from frossl.core.progress import Progress
from frossl.core.types import StepContext
from frossl.data.arrays import from_tensors
from frossl.data.loader import training_batches
from frossl.data.types import Dataset
from frossl.evals import measure
from frossl.evals.extract import pixels, sample
from frossl.evals.linear import fewshot
from frossl.evals.ranking import half_interval
from frossl.nn.encoder import save_encoder
from frossl.runs.config import Config
from frossl.runs.data import load_run_data
from frossl.runs.encoders import start_weights
from frossl.runs.log import read_rows
from frossl.train.display import TrainingDisplay
from frossl.train.loop import build, train
from frossl.train.plan import make_plan
from frossl.train.ranks import start
from frossl.train.step import Stepper

P = ParamSpec("P")
T = TypeVar("T")
Row = dict[str, Any]

DATA = Path("docs/results/data")
"""Where rows go if nothing else is said."""
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


def in_fresh_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of ``function`` in a process that has only imported what training needs."""
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(kind)
    context.set_forkserver_preload(["frossl.train.pretrain"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args, **kwargs).result()


def run_jobs(
    jobs: Iterable[tuple[Row, Callable[..., Row], tuple[Any, ...]]],
    out: Path,
    same: Sequence[str],
    call: Callable[..., Row] = in_fresh_process,
) -> list[Row]:
    """All rows of ``out`` after every (what identifies a row, function, its arguments) has one.

    Jobs whose fields ``same`` a row of ``out`` has already are skipped, unless that row holds an error. ``call`` is
    given the function and its arguments.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    jobs = list(jobs)
    rows = read_rows(out) if out.exists() else []
    done = {tuple(row[name] for name in same) for row in rows if "error" not in row}
    for number, (about, function, args) in enumerate(jobs, 1):
        if tuple(about[name] for name in same) in done:
            continue
        print(f"{number}/{len(jobs)}", *(f"{name} {about[name]}" for name in same), file=sys.stderr, flush=True)
        try:
            row = about | call(function, *args)
        except (ValueError, RuntimeError, MemoryError, BrokenProcessPool) as error:
            row = about | {"error": f"{type(error).__name__}: {error}"}
            print(f"  {row['error']}", file=sys.stderr, flush=True)
        rows.append(row)
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return rows


def write_rows(out: Path, rows: Iterable[Row], about: dict[str, str]) -> None:
    """Writes ``rows`` to ``out``, a line each, with the environment they were measured in."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(row | {"environment": about}) + "\n" for row in rows))


def latest(rows: Iterable[Row], same: Sequence[str]) -> list[Row]:
    """The last row of each that agree in the fields ``same``: a job that failed may have been done again."""
    return list({tuple(row[name] for name in same): row for row in rows}.values())


def pretrain_and_evaluate(
    config: Config,
    threads: int,
    metrics: Sequence[str] = ("knn", "linear", "rank"),
    validation: float | None = None,
    draws: int = 0,
    data: Dataset | None = None,
    most: tuple[int, int] | None = None,
    save: Path | None = None,
) -> Row:
    """Trains as ``config`` says, on ``data`` if given; what the encoder is worth, and the median time of a step.

    With ``most``, so many training and held-out images are evaluated on; with ``save``, the encoder goes there.

    With ``validation``, this share of the training images is scored, on which the encoder was not trained, and nothing
    sees the held-out ones. With ``draws``, the probe on 10 labels per class is the mean over so many of them.
    """
    torch.set_num_threads(threads)
    config = dataclasses.replace(config, monitor_every=NEVER, checkpoint_every=NEVER)
    data = data or load_run_data(config)
    if validation:
        data = from_tensors(data.train, name=data.name, classes=data.classes, held_out=validation)
    learner, plan = build(config, data, start=start_weights(config))
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory)
        if train(learner, plan, data, Length.parse(config.length), run):
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


def on_device(run: Callable[[], object], device: torch.device) -> float:
    """Seconds from the start of ``run`` to the end of all that it gave ``device`` to do; between two events on CUDA."""
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter() - start
    torch.cuda.synchronize(device)
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    run()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / 1e3


def measure_pixels(config: Config, threads: int, most: tuple[int, int] | None = None, draws: int = 0) -> Row:
    """What raw pixels of the images of ``config`` are worth, by the metrics of :func:`pretrain_and_evaluate`."""
    torch.set_num_threads(threads)
    data = load_run_data(config)
    plan = make_plan(config, data)
    data = data if most is None else sample(data, *most)
    network, spec = pixels(plan.spec)
    features = plan.extractor().data(network, data, spec)
    few = fewshot(features, draws=draws) if draws else {}
    return {**measure(features, ["knn", "linear"]), **few, "held_out": len(data.test)}


def training_cost(config: Config, data: Dataset, steps: int, threads: int) -> Row:
    """Medians over ``steps`` of the time of a whole training step, and of its heads and objective alone.

    Views are made, the optimiser steps and averaged networks follow, as in training; frozen layers and queues are as
    late in a run. Times are those of :func:`on_device`. Memory is the peak over what the process had before there was a
    model: of the process, or, on CUDA, what PyTorch reserved on the device.
    """
    torch.set_num_threads(threads)
    before = resident_mib("VmRSS")
    learner, plan = build(config, data)
    take = Stepper(learner, plan, start(config))
    bf16 = plan.precision == "bf16"
    on_cuda = plan.device.type == "cuda"
    batches = training_batches(data, plan.recipe, batch=plan.batch, seed=config.seed, device=plan.device)
    whole = []
    for step in range(WARM_UP + steps):
        whole.append(1e3 * on_device(lambda step=step: take(next(batches), step, 0.5, 1e6), plan.device))
    batch = next(batches)
    peak = torch.cuda.max_memory_reserved() / 2**20 if on_cuda else resident_mib("VmHWM") - before
    with torch.no_grad(), torch.autocast(plan.device.type, torch.bfloat16, enabled=bf16):
        h_VNF = torch.cat([learner.encode(learner.backbone, x) for x in batch.views])
    target_VNF = None if learner.target is None else h_VNF[: learner.method.spec.large_views].detach()
    labels_N = None if batch.labels_N is None else batch.labels_N.to(plan.device)
    moment = StepContext(progress=0.5, epoch=1e6, target_VNF=target_VNF, labels_N=labels_N)

    def heads_and_objective() -> None:
        with torch.autocast(plan.device.type, torch.bfloat16, enabled=bf16):
            loss = learner.method(h_VNF, moment)
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


def resident_mib(field: str) -> float:
    """Memory of this process, ``VmRSS`` now or ``VmHWM`` at its peak, in MiB; where there is no /proc, the peak."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would also count the process that started this one
        found = re.search(rf"{field}:\s+(\d+) kB", status.read_text())
        assert found is not None
        return int(found[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def warm_allocator() -> None:
    """Frees 31 MiB once, so that glibc keeps what is freed later, as it does in any process that trains."""
    torch.empty(31 * 2**18)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


CPU = torch.device("cpu")


def interleaved(
    runs: dict[str, Callable[[], object]], rounds: int, warm_up: int = 3, device: torch.device = CPU
) -> dict[str, list[float]]:
    """Seconds of each run in each round, all runs once a round, so that what disturbs one disturbs all."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(warm_up + rounds):
        for name, run in runs.items():
            took = on_device(run, device)
            if number >= warm_up:
                times[name].append(took)
    return times


def environment(threads: int, *packages: str) -> dict[str, str]:
    """What a number depends on besides the code."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", *packages)}
    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "threads": str(threads),
        "python": platform.python_version(),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        **versions,
        "frossl": importlib.metadata.version("frossl"),
        "date": time.strftime("%Y-%m-%d"),
    }


def processor() -> str:
    """Name of the processor."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def heading(title: str, command: str, about: dict[str, str], *notes: str) -> str:
    """The top of a page of results: how they were got, and on what."""
    where = ", ".join(f"{name} {value}" for name, value in about.items() if name not in ("processor", "date"))
    return "\n\n".join([f"# {title}", f"`{command}`", f"{about['processor']}; {where}; {about['date']}.", *notes])


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def spread(values: Sequence[float | None], digits: int) -> str:
    """The mean, with half its 95 % interval over seeds where there are several values; a dash where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    half = half_interval(known)
    return f"{statistics.fmean(known):.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")


def seeds_in_words(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"one seed, {seeds[0]}"
    return f"seeds {', '.join(map(str, seeds))} (mean ± 95 % interval over seeds, Student's t)"


def summary(config: Config) -> Row:
    """What of ``config`` a reader of a row wants to know."""
    names = ("method", "seed", "length", "batch", "optimizer", "lr", "weight_decay", "view_recipe", "crop_scale")
    return to_plain({name: getattr(config, name) for name in names} | {"objective": config.objective})
