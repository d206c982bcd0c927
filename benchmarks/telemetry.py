"""What telemetry costs, and over how many steps a spectrum of training views may reach.

    python benchmarks/telemetry.py --data cifar10 [--threads 2] > docs/results/telemetry.md

Cost: telemetry is timed within a run, by the clock and by the processor. Beside it a run without telemetry, in a
process of its own, takes turns with it step by step, so that what disturbs one disturbs the other; in every other round
it has the first turn. Reach: figures of moments over the last steps before a step, for longer and longer
reaches. Rows go to ``docs/results/data/telemetry.jsonl``, and what is there is not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import frossl.train.telemetry as room
from common import DATA, Row, environment, heading, latest, run_jobs, table
from frossl.core.axes import fold
from frossl.core.length import Length
from frossl.evals.spectral import Moments
from frossl.runs.config import Config
from frossl.runs.data import load_run_data
from frossl.train.loop import build, train
from frossl.train.telemetry import STEPS, Telemetry
from training import NEVER, Watch, recipe_of_studies

SAME = ("study", "recipe", "length", "threads", "number")
PATIENCE = 600.0
"""Seconds that a run waits for its turn."""
BLOCK = 10
"""Steps that are one draw of the bootstrap."""
WHOLE = ("observe", "held_out", "drain")
"""What the training loop calls of telemetry."""
PARTS = {"features": "embeddings", "batch_statistics": "diagnostics", "gather": "moments", "spectrum_of": "spectra"}
"""Functions of telemetry and what they are for."""
AT, REACHES = (50, 100, 200, 500), (1, 4, 10, 20, 50, 100, 250, 500)
"""Steps at which reaches are compared, and the reaches, in steps."""
FIGURES = ("effective_rank", "entropy_rank", "rankme", "power_law_exponent", "condition_number", "mean_to_spread")


def cost(config: Config, threads: int) -> Row:
    """Wall time of every step of two runs in turn, and what of the one that is watched was telemetry."""
    context = multiprocessing.get_context("spawn")
    turns = {on: context.Semaphore(0) for on in (True, False)}
    with ProcessPoolExecutor(2, context, initializer=_take_turns, initargs=(turns, threads)) as pool:
        runs = [pool.submit(_run, on, config) for on in (True, False)]
        turns[_first(config.seed)].release()
        watched, alone = (future.result() for future in runs)
    of = ("processor", "parts", "telemetry")
    return {"watched": watched["wall"], "alone": alone["wall"]} | {name: watched[name] for name in of}


def _first(number: int) -> bool:
    """Whether the run with telemetry has the first turn in this round."""
    return number % 2 == 0


_turns: dict[bool, Any] = {}


def _take_turns(turns: dict[bool, Any], threads: int) -> None:
    _turns.update(turns)
    torch.set_num_threads(threads)


def _run(on: bool, config: Config) -> Row:
    """One run with or without telemetry, which waits for its turn before every step."""
    data = load_run_data(config)
    spent: dict[str, float] = defaultdict(float)
    took: dict[str, float] = defaultdict(float)
    wall: list[float] = []
    began, worked = 0.0, 0.0

    def timed(
        name: str, function: Callable[..., Any], clock: Callable[[], float], into: dict[str, float]
    ) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            start = clock()
            result = function(*args, **options)
            into[name] += clock() - start
            return result

        return run

    def begin() -> None:
        nonlocal began
        if not _turns[on].acquire(timeout=PATIENCE):
            raise RuntimeError("the other run has ended")
        began = time.perf_counter()

    def hand_over(*_: Any) -> None:
        wall.append(round(time.perf_counter() - began, 5))
        _turns[not on].release()
        begin()

    def trained(length: str, show: Callable[..., None]) -> None:
        own = dataclasses.replace(config, length=length, telemetry_every=config.telemetry_every * on)
        learner, plan = build(own, data)
        with tempfile.TemporaryDirectory() as directory:
            train(learner, plan, data, Length.parse(length), Path(directory), display=Watch(show))

    trained("3it", lambda *_: None)  # warms up
    by_processor = (time.process_time, spent)
    methods = {name: timed(name, getattr(Telemetry, name), *by_processor) for name in ("features", "gather")}
    methods |= {name: timed(name, getattr(Telemetry, name), time.perf_counter, took) for name in WHOLE}
    functions = {name: timed(name, getattr(room, name), *by_processor) for name in ("batch_statistics", "spectrum_of")}
    with patch.multiple(Telemetry, **methods), patch.multiple(room, **functions):
        begin()
        worked = time.process_time()
        trained(config.length, hand_over)
        worked = time.process_time() - worked
    _turns[not on].release()
    return {"wall": wall, "processor": worked, "parts": dict(spent), "telemetry": sum(took.values())}


def reach(config: Config, threads: int) -> Row:
    """Figures at each of :data:`AT` of moments over each of :data:`REACHES`, of at most :data:`STEPS` steps."""
    torch.set_num_threads(threads)
    config = dataclasses.replace(config, length=f"{max(AT)}it", monitor_every=NEVER)
    data = load_run_data(config)
    learner, plan = build(config, data)
    moments: dict[tuple[str, int, int], Moments] = {}
    found: list[Row] = []

    @torch.no_grad()
    def see(self: Telemetry, step: int, h_VNF: Tensor, values: dict[str, Tensor]) -> None:
        for place, x in self.features(h_VNF).items():
            part = Moments.of(fold(x))
            for at in (at for at in AT if at >= step):
                for steps in (n for n in REACHES if at - step < n <= at):
                    if (at - step) % -(-steps // STEPS) == 0:
                        key = (place, at, steps)
                        moments[key] = moments[key] + part if key in moments else part
                        if at == step:
                            said = moments.pop(key).summary()
                            figures = {name: float(f"{said[name]:.5g}") for name in FIGURES if name in said}
                            found.append({"place": place, "at": at, "steps": steps, **figures})

    with patch.object(Telemetry, "see", see), tempfile.TemporaryDirectory() as directory:
        train(learner, plan, data, Length.parse(config.length), Path(directory))
    return {"found": found}


def jobs(args: argparse.Namespace) -> Iterator[tuple[Row, Any, tuple[Any, ...]]]:
    config = dataclasses.replace(
        recipe_of_studies(args.recipe), data=args.data, length=args.length, monitor_every="50%", checkpoint_every=NEVER
    )
    about = {"recipe": args.recipe, "threads": args.threads, "every": config.telemetry_every}
    about |= {"environment": environment(args.threads)}
    yield about | {"study": "reach", "length": f"{max(AT)}it", "number": 0}, reach, (config, args.threads)
    for number in range(args.rounds):
        row = about | {"study": "cost", "length": args.length, "number": number}
        yield row, cost, (dataclasses.replace(config, seed=number), args.threads)


def interval(watched: list[float], alone: list[float]) -> tuple[float, float, float]:
    """How many per cent more ``watched`` took in all, with a 95 % bootstrap interval over blocks of steps."""
    blocks = [
        (sum(watched[i : i + BLOCK]), sum(alone[i : i + BLOCK])) for i in range(0, min(len(watched), len(alone)), BLOCK)
    ]
    draw = random.Random(0)

    def more(some: list[tuple[float, float]]) -> float:
        return 100 * (sum(a for a, _ in some) / sum(b for _, b in some) - 1)

    drawn = sorted(more(draw.choices(blocks, k=len(blocks))) for _ in range(2000))
    return more(blocks), drawn[49], drawn[1949]


def show(rows: list[Row], args: argparse.Namespace) -> str:
    """The page of results."""
    rows = [row for row in latest(rows, SAME) if "error" not in row and row["threads"] == args.threads]
    costs = [row for row in rows if row["study"] == "cost" and row["length"] == args.length]
    lines = []
    for row in costs:
        more, low, high = interval(row["watched"], row["alone"])
        parts = [f"{100 * row['parts'].get(name, 0.0) / row['processor']:.2f}" for name in PARTS]
        wall = [f"{sum(row[name]):.1f}" for name in ("alone", "watched")]
        own = f"{100 * row['telemetry'] / sum(row['watched']):.2f}"
        lines.append(
            [
                row["number"],
                "with" if _first(row["number"]) else "without",
                own,
                *wall,
                f"{more:+.2f} ({low:+.2f} to {high:+.2f})",
                *parts,
            ]
        )
    command = (
        f"python benchmarks/telemetry.py --data path/to/cifar10 --length {args.length} --rounds {len(costs)} "
        f"--threads {args.threads}"
    )
    pooled = [[wall for row in costs for wall in row[name]] for name in ("watched", "alone")]
    more, low, high = interval(*pooled)
    parts = statistics.fmean(100 * sum(row["parts"].values()) / row["processor"] for row in costs)
    whole = statistics.fmean(100 * row["telemetry"] / sum(row["watched"]) for row in costs)
    note = (
        f"Recipe {args.recipe}, two runs of {args.length} with 2 looks of the monitor that take turns at every step, "
        f"one with telemetry every {rows[-1]['every']} steps, one without. Telemetry takes {whole:.2f} % of the wall "
        f"time of the run that has it, and its parts {parts:.2f} % of the processor time. Against the other run that "
        f"is {more:+.2f} % of the wall time in all ({low:+.2f} to {high:+.2f}; 95 %, bootstrap over blocks of {BLOCK} "
        "steps, which does not know that two processes differ). Spectra and diagnostics come more often in the first "
        "500 steps than later."
    )
    found = [one for row in rows if row["study"] == "reach" for one in row["found"]]
    far = [
        [one["place"], one["at"], one["steps"], *(f"{one[name]:.4g}" if name in one else "–" for name in FIGURES)]
        for one in sorted(found, key=lambda one: (one["place"], one["at"], one["steps"]))
    ]
    names = [name.replace("_", " ") for name in FIGURES]
    return "\n\n".join(
        [
            heading("What telemetry costs", command, costs[-1]["environment"], note),
            table(
                [
                    "seed",
                    "first turn",
                    "telemetry, % of wall",
                    "without, s",
                    "with, s",
                    "more, % (95 %)",
                    *(f"{name}, % of processor" for name in PARTS.values()),
                ],
                lines,
            ),
            "## How far back a spectrum may reach",
            "Figures of training views at a step, from moments over the last steps before it (of at most "
            f"{STEPS} of these, evenly apart). Few steps are few samples, which lack the small eigenvalues; over many "
            "the encoder has changed, and its changes count as variance. Telemetry takes a tenth of the steps so far, "
            "at most a tenth of its interval.",
            table(["place", "at step", "steps", *names], far),
            "Rows: [data/telemetry.jsonl](data/telemetry.jsonl).",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--recipe", default="cifar10-cpu")
    parser.add_argument("--length", default="500it")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=DATA / "telemetry.jsonl")
    args = parser.parse_args()
    print(show(run_jobs(jobs(args), args.out, SAME), args))


if __name__ == "__main__":
    main()
