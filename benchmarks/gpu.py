"""What only a GPU can show, in parts of at most 8 minutes; a part that was not done goes on where it stopped.

    python benchmarks/gpu.py parity
    python benchmarks/gpu.py speed
    python benchmarks/gpu.py anchor --data path/to/cifar10
    python benchmarks/gpu.py methods
    python benchmarks/gpu.py page > docs/results/gpu.md

"parity" compares views, losses and 20 steps with the CPU, has torch refuse every wait for the device over 50 steps, and
kills and resumes a run with ``--deterministic``. "speed" times whole steps between steps on views that are ready, and
lightly's transforms and loss if that is installed. "anchor" trains FroSSL on CIFAR-10 by lightly's protocol: 200
epochs, batch 512, two views; others report 86.9 % in 52 minutes of an RTX 4090. "methods" is what each costs with more
views. Rows go to ``docs/results/data/gpu.jsonl``. ``--toy`` does all of it at sizes for a CPU, which shows that it
runs and nothing else.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from common import DATA, Row, environment, heading, in_this_process, latest, run_jobs, table
from frossl.commands.bench import noise
from frossl.core.device import fork_random
from frossl.core.length import Length
from frossl.data.loader import training_batches
from frossl.methods import METHODS
from frossl.runs.checkpoint import load_newest
from frossl.runs.config import Config
from frossl.runs.log import read_rows
from frossl.train.loop import build, rank_batches, train
from frossl.train.pretrain import pretrain
from frossl.train.ranks import start
from frossl.train.resources import device_of
from frossl.train.step import Stepper
from frossl.views.make import render_views
from frossl.views.params import sample_params
from frossl.views.recipes import VIEWS, with_size
from training import Watch, cost_on_noise

sys.path.extend(str(Path(__file__).parents[1] / place) for place in ("tests", "tests/losses"))
from loss_cases import CASES, ORACLES, case_name, tensors, with_gradients

Job = tuple[Row, Callable[..., Row], tuple[Any, ...]]
SAME = ("part", "what")
GOAL = 0.9
"""Of the ceiling: what a step on views that are ready would give."""
TOY = '{"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}'


def config_of(toy: bool, **changes: Any) -> Config:
    small = {"backbone_options": TOY, "batch": 8} if toy else {}
    return Config(**{"data": "noise", "evaluate": False, **small, **changes})


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double().cpu() - b.double().cpu()).norm() / b.double().cpu().norm().clamp_min(1e-30))


def views_parity(name: str, device: torch.device) -> Row:
    """Grey levels between views of the device and of the CPU."""
    recipe, data = with_size(VIEWS[name], 32), noise(16, 40)
    images = torch.nn.functional.avg_pool2d(data.train.images.float(), 5, 1, 2).byte()  # type: ignore[union-attr]
    drawn = sample_params(recipe, seed=0, epoch=0, index_N=torch.arange(len(images)), height=40, width=40)
    off = [
        255 * (a.cpu() - b).abs()
        for a, b in zip(
            render_views(images.to(device), recipe, drawn, [0.0] * 3, [1.0] * 3),
            render_views(images, recipe, drawn, [0.0] * 3, [1.0] * 3),
            strict=True,
        )
    ]
    return {"mean_grey": max(float(x.mean()) for x in off), "worst_grey": max(float(x.max()) for x in off)}


def loss_parity(number: int, device: torch.device) -> Row:
    """Relative error of a loss and its gradient in float32 against float64 on the CPU: there, here, and in TF32."""
    name, options = CASES[number]
    oracle = ORACLES[name]

    def found(dtype: torch.dtype, where: str, tf32: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        given = tensors(oracle, oracle.arguments(0, 2, 64, 32, **options), dtype)
        given = {k: v.to(where) if isinstance(v, torch.Tensor) else v for k, v in given.items()}
        torch.backends.cuda.matmul.allow_tf32 = tf32
        loss, gradients = with_gradients(oracle, given)
        torch.backends.cuda.matmul.allow_tf32 = False
        return loss.total.detach(), torch.cat([g.flatten() for g in gradients.values()])

    exact = found(torch.float64, "cpu")
    arms = {"cpu": ("cpu", False), "device": (str(device), False), "tf32": (str(device), True)}
    row = {}
    for arm, (where, tf32) in arms.items():
        value, gradient = found(torch.float32, where, tf32)
        row |= {f"value_{arm}": relative(value, exact[0]), f"gradient_{arm}": relative(gradient, exact[1])}
    return row


def taken(toy: bool, device: str, steps: int, **changes: Any) -> tuple[list[float], list[float]]:
    """Losses of so many steps, and their seconds."""
    config = config_of(toy, device=device, **changes)
    data = noise(4 * (config.batch or 128), 32)
    learner, plan = build(config, data)
    take = Stepper(learner, plan, start(config))
    learner.train()
    losses, seconds = [], []
    for step, batch in zip(range(steps), rank_batches(data, plan), strict=False):
        began = time.perf_counter()
        losses.append(float(take(batch, step, 0.5, 1.0)["loss"]))
        seconds.append(time.perf_counter() - began)
    return losses, seconds


def steps_parity(method: str, toy: bool, device: torch.device) -> Row:
    """How far the losses of 20 steps in float32 are from those of the CPU."""
    steps = 3 if toy else 20
    here, there = (taken(toy, d, steps, method=method, precision="32", lr=1e-4)[0] for d in (device.type, "cpu"))
    off = [abs(a - b) / max(abs(b), 1e-6) for a, b in zip(here, there, strict=True)]
    return {"first": off[0], "worst": max(off), "steps": steps}


def no_waits(method: str, toy: bool, device: torch.device) -> Row:
    """50 steps in which torch makes an error of every wait for the device."""
    config = config_of(toy, device=device.type, method=method)
    data = noise(4 * (config.batch or 128), 32)
    learner, plan = build(config, data)
    take, steps = Stepper(learner, plan, start(config)), 5 if toy else 50
    learner.train()
    batches = rank_batches(data, plan)
    take(next(batches), 0, 0.5, 1.0)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, steps):
            take(next(batches), step, 0.5, 1.0)
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    take.check()
    return {"steps": steps, "waits": 0}


def resumed(toy: bool, device: torch.device) -> Row:
    """Whether a run that is stopped half-way and resumed with ``--deterministic`` ends with the same bits."""
    data, steps = noise(256, 32), 4 if toy else 20
    how = {"device": device.type, "deterministic": True, "monitor_every": "100%", "length": f"{steps}it"}
    states = []
    for stop in (None, steps // 2):
        with tempfile.TemporaryDirectory() as folder:
            config = config_of(toy, **how, checkpoint_every="1it", out=Path(folder), name="run")
            learner, plan = build(config, data)
            fabric, run = start(config), Path(folder)

            def see(progress: Any, values: dict[str, float], stop: int | None = stop) -> None:
                if progress.step == stop:
                    raise KeyboardInterrupt

            length = Length.parse(config.length)
            try:
                train(learner, plan, data, length, run, display=Watch(see), fabric=fabric)
            except KeyboardInterrupt:
                learner, plan = build(config, data)
                train(learner, plan, data, length, run, load_newest(run, print)[1], fabric=fabric)
            states.append([x.cpu() for x in learner.state_dict().values()])
    return {"same_bits": all(torch.equal(a, b) for a, b in zip(*states, strict=True)), "steps": steps}


def parity(toy: bool, device: torch.device) -> Iterator[Job]:
    for name in list(VIEWS)[: 1 if toy else None]:
        yield {"what": f"views {name}"}, views_parity, (name, device)
    for number, case in list(enumerate(CASES))[: 2 if toy else None]:
        yield {"what": f"loss {case_name(case)}"}, loss_parity, (number, device)
    for method in ("frossl", "byol")[: 1 if toy else None]:
        yield {"what": f"steps {method}"}, steps_parity, (method, toy, device)
    for name, method in METHODS.items():
        if method.trains and not method.eigenvalues and (not toy or name == "frossl"):
            yield {"what": f"waits {name}"}, no_waits, (name, toy, device)
    yield {"what": "resume"}, resumed, (toy, device)


def step_speed(size: int, views: int, toy: bool, device: torch.device) -> Row:
    """Milliseconds of a step, and what of the speed on views that are ready is left."""
    config = config_of(toy, device=device.type, views=views, size=size, view_recipe="imagenet-vicreg")
    data, steps = noise(4 * (config.batch or 128), size), 3 if toy else 40
    learner, plan = build(config, data)
    take, batches = Stepper(learner, plan, start(config)), rank_batches(data, plan)
    learner.train()
    ready = next(batches)

    def timed(batch_of: Callable[[], Any], count: int) -> float:
        getattr(torch, device.type).synchronize()
        began = time.perf_counter()
        for step in range(count):
            take(batch_of(), step, 0.5, 1.0)
        getattr(torch, device.type).synchronize()
        return (time.perf_counter() - began) / count

    timed(lambda: next(batches), 2)
    before = timed(lambda: ready, steps // 2 + 1)
    whole = timed(lambda: next(batches), steps)
    ceiling = (before + timed(lambda: ready, steps // 2 + 1)) / 2
    return {"step_ms": 1e3 * whole, "of_ceiling": ceiling / whole, "precision": plan.precision, "batch": plan.batch}


def lightly_speed(toy: bool, device: torch.device) -> Row:
    """lightly's transforms and loss beside ours on the same images, in images a second."""
    from lightly.loss import FroSSLLoss
    from lightly.transforms.vicreg_transform import VICRegTransform
    from torchvision.transforms.functional import to_pil_image

    count = 8 if toy else 256
    images = noise(count, 32).train.images
    transform, criterion = VICRegTransform(input_size=32), FroSSLLoss()
    began = time.perf_counter()
    for x in images:  # type: ignore[union-attr]
        transform(to_pil_image(x))
    theirs = count / (time.perf_counter() - began)
    data, recipe = noise(4 * count, 32), with_size(VIEWS["imagenet-vicreg"], 32)
    batches = training_batches(data, recipe, batch=count, seed=0, device=device, prefetch=False)
    next(batches)
    began = time.perf_counter()
    next(batches)
    getattr(torch, device.type).synchronize()
    ours = count / (time.perf_counter() - began)
    z = torch.randn(2, count, 1024, device=device)
    losses = {}
    for name, loss in (("lightly", lambda z: criterion(list(z))), ("frossl", _frossl)):
        times = []
        for _ in range(3 if toy else 20):
            x = z.clone().requires_grad_()
            getattr(torch, device.type).synchronize()
            began = time.perf_counter()
            loss(x).backward()
            getattr(torch, device.type).synchronize()
            times.append(time.perf_counter() - began)
        losses[name] = statistics.median(times)
    return {"views_ratio": ours / theirs, "loss_ratio": losses["lightly"] / losses["frossl"]}


def _frossl(z: torch.Tensor) -> torch.Tensor:
    from frossl.losses import frossl

    return frossl(z).total


def speed(toy: bool, device: torch.device) -> Iterator[Job]:
    for size in (32,) if toy else (32, 64, 96, 224):
        for views in (2,) if toy else (2, 4, 8):
            yield {"what": f"{size} px, {views} views"}, step_speed, (size, views, toy, device)
    if importlib.util.find_spec("lightly") is not None:
        yield {"what": "lightly"}, lightly_speed, (toy, device)


def anchor_run(data: str, runs: Path, minutes: float, toy: bool, device: torch.device) -> Row:
    """Goes on with the run for so many minutes; what it is worth, if it came to its end.

    Raises:
        RuntimeError: it did not; the next call goes on.
    """
    run, until = runs / "gpu-anchor", time.monotonic() + 60 * minutes
    how = {"length": "2it", "labels": True} if toy else {"length": "200ep", "batch": 512, "views": 2}
    config = config_of(toy, device=device.type, **how, data=data, out=runs, name=run.name, monitor_every="10%")
    config = dataclasses.replace(config, checkpoint_every="1min", evaluate=True)
    stopping = _stop_at(until)
    ended = pretrain(config, resume=run if run.exists() else None, console=Console(stderr=True))
    stopping.cancel()
    if ended.stopped:
        raise RuntimeError(f"{run} is not done; the same command goes on")
    assert ended.evaluation is not None
    seconds = read_rows(run / "metrics.jsonl")[-1]["seconds"]
    worth = ended.evaluation.arms["pretrained"]
    return {name: worth[name] for name in ("knn", "linear")} | {"training_minutes": seconds / 60}


def _stop_at(until: float) -> Any:
    """A timer that asks this process to stop as Ctrl-C does."""
    import os
    import signal
    import threading

    timer = threading.Timer(max(1.0, until - time.monotonic()), lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.daemon = True
    timer.start()
    return timer


def methods(toy: bool, device: torch.device) -> Iterator[Job]:
    for name in ["frossl"] if toy else [name for name, method in METHODS.items() if method.trains]:
        for views in (2,) if toy else (2, 4, 8):
            size, steps = (32, 2) if toy else (96, 30)
            config = config_of(toy, device=device.type, method=name, views=views, size=size)
            yield {"what": f"{name}, {views} views"}, cost_on_noise, (config, size, steps, torch.get_num_threads())


def page(rows: list[Row]) -> str:
    """Tables of all rows there are, one for each part."""
    parts = [heading("On a GPU", "python benchmarks/gpu.py PART", rows[-1]["environment"], __doc__.split("\n\n", 2)[2])]
    for part in dict.fromkeys(row["part"] for row in rows):
        of = [row for row in latest(rows, SAME) if row["part"] == part]
        names = list(dict.fromkeys(name for row in of for name in row if name not in ("part", "environment")))
        parts += [f"## {part}", table(names, [[_cell(row.get(name, "")) for name in names] for row in of])]
    ceilings = [row["of_ceiling"] for row in rows if "of_ceiling" in row]
    if ceilings:
        parts.append(f"Lowest share of the ceiling: {min(ceilings):.2f}; the goal is {GOAL}.")
    return "\n\n".join(parts)


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["parity", "speed", "anchor", "methods", "page"])
    parser.add_argument("--data", default="cifar10", help="CIFAR-10, for the anchor")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--out", type=Path, default=DATA / "gpu.jsonl")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    given = parser.parse_args(args)
    if given.part == "page":
        print(page(read_rows(given.out)))
        return
    device = device_of(Config(data="noise"))
    if device.type != "cuda" and not given.toy:
        parser.error("this machine has no GPU that PyTorch can use; --toy runs every part on the CPU")
    until = time.monotonic() + 60 * given.minutes
    anchor: Job = {"what": "cifar10"}, anchor_run, (given.data, given.runs, given.minutes - 0.5, given.toy, device)
    jobs = {"parity": parity, "speed": speed, "methods": methods}.get(given.part, lambda *_: iter([anchor]))
    about = {"part": given.part, "environment": environment(torch.get_num_threads(), "timm")}
    for what, function, arguments in jobs(given.toy, device):
        if time.monotonic() > until:
            print("out of time; the same command goes on", file=sys.stderr)
            return
        with fork_random(device):
            run_jobs([(about | what, function, arguments)], given.out, SAME, call=in_this_process)


if __name__ == "__main__":
    main()
