"""What reliability costs, guards in a step and checkpoints in a run; and what it saves to keep freed pages.

    python benchmarks/overheads.py [--pairs 60] [--threads 1] [--device cuda]
    python benchmarks/overheads.py --table > docs/results/overheads.md

Steps with and without guards (copies of batch-norm statistics, the flag, what is chosen by it, the look of the host)
take turns on the same batches in one process, and what is given is the median of the differences within pairs with its
95 % interval; and the operations of the guards by themselves, as whole steps differ by their noise. A save is timed
from the snapshot to the flushed directory; a run saves every 10 minutes, at its end, and at each of ten looks of the
monitor that is better than those before it. Steps with freed pages kept, as the command line does it on the CPU, and
returned to the system, as glibc would, have a process each and take turns. Finished rows of --out are not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, get_args

import torch

from common import Row, environment, heading, measured_rows, on_device, parse_arguments, read_or_run, seconds, table
from frossl.commands.bench import noise
from frossl.core.length import Length
from frossl.core.machine import keep_freed_pages
from frossl.data.loader import Batch, training_batches
from frossl.methods import find_method
from frossl.nn.snapshot import Snapshot
from frossl.runs.checkpoint import load_checkpoint, save_checkpoint
from frossl.runs.config import Config, Device
from frossl.train.loop import build
from frossl.train.ranks import start
from frossl.train.state import set_up
from frossl.train.step import Stepper
from training import cost_on_noise, recipe_of_studies

RUN, SAVES = 600.0, 12
"""Seconds of a run, and the most saves in it by default: ten better rows of the monitor, one by the clock, the last."""
CASES = (("frossl", "resnet18", 128), ("byol", "resnet18", 128), ("frossl", "resnet18", 32))
PAGES, ROUNDS, STEPS = ("cifar10-cpu", 256), 3, 30
SAME = ("kind", "method", "backbone", "batch", "device", "kept", "round")


def guards(take: Stepper, total: torch.Tensor) -> None:
    """What a step does beside learning."""
    take.before.save()
    good = take._judge(0, dict.fromkeys(("loss", *take.names[1:-1], "grad_norm"), total))
    take.before.restore(good)
    take.check()


@contextmanager
def unguarded(take: Stepper) -> Iterator[None]:
    """Steps that copy nothing, judge nothing and choose nothing."""
    before = take.before
    take.before = Snapshot([])
    take._judge = lambda *_: take.good  # type: ignore[method-assign]
    try:
        yield
    finally:
        take.before = before
        del take._judge


def pair(take: Stepper, batch: Batch, guarded_first: bool) -> tuple[float, float]:
    """Seconds of a step with guards and of one without."""

    def with_guards() -> None:
        take(batch, 3, 0.5, 2.0)
        take.check()

    def without() -> None:
        with unguarded(take):
            take(batch, 3, 0.5, 2.0)

    device = take.good.device
    if guarded_first:
        return on_device(with_guards, device), on_device(without, device)
    bare = on_device(without, device)
    return on_device(with_guards, device), bare


def median_and_interval(values: list[float]) -> str:
    """In percent; the interval is that of order statistics."""
    ordered, reach = sorted(values), 0.98 * len(values) ** 0.5
    low, high = (
        ordered[min(max(round(len(values) / 2 + at), 0), len(values) - 1)] for at in (-reach - 0.5, reach - 0.5)
    )
    return f"{100 * statistics.median(values):.2f} ({100 * low:.2f} to {100 * high:.2f}) %"


def measured(method: str, backbone: str, batch: int, pairs: int, device: str) -> Row:
    config = Config(
        data="noise",
        method=method,
        objective=find_method(method).Config(),
        backbone=backbone,
        batch=batch,
        device=device,
    )
    data = noise(1024, 32)
    learner, plan = build(config, data)
    state = set_up(learner, plan, data, Length(100, "it"), start(config))
    take = state.stepper
    learner.train()
    batches = training_batches(data, plan.recipe, batch=batch, seed=0, device=plan.device)
    total = torch.ones((), device=plan.device)
    for step in range(3):
        take(next(batches), step, 0.5, 2.0)
    times = [pair(take, next(batches), bool(number % 2)) for number in range(pairs)]
    alone = statistics.median(on_device(lambda: guards(take, total), plan.device) for _ in range(pairs))
    step = statistics.median(guarded for guarded, _ in times)
    with tempfile.TemporaryDirectory() as folder:

        def save() -> Path:
            return save_checkpoint(Path(folder), 1, state.state_dict())

        saves = [seconds(save) for _ in range(7)]
        path = save()
        loads = [seconds(lambda: load_checkpoint(path)) for _ in range(3)]
        size = path.stat().st_size / 2**20
    return {"pairs": times, "step_s": step, "alone_s": alone, "saves": saves, "loads": loads, "mib": size}


def line(row: Row) -> list[str]:
    """A row as it is shown."""
    save_s = statistics.median(row["saves"])
    return [
        f"`{row['method']}`",
        f"`{row['backbone']}`",
        str(row["batch"]),
        f"{row['step_s'] * 1e3:.0f}",
        median_and_interval([(guarded - bare) / bare for guarded, bare in row["pairs"]]),
        f"{row['alone_s'] * 1e3:.2f}",
        f"{100 * row['alone_s'] / row['step_s']:.2f} %",
        f"{row['mib']:.0f}",
        f"{save_s:.2f}",
        f"{max(row['saves']):.2f}",
        f"{statistics.median(row['loads']):.2f}",
        f"{100 * SAVES * save_s / RUN:.2f} %",
    ]


def with_pages(kept: bool, recipe: str, batch: int, threads: int) -> Row:
    """What a step costs where glibc keeps freed pages or returns them."""
    if kept:
        keep_freed_pages()
    return cost_on_noise(dataclasses.replace(recipe_of_studies(recipe), batch=batch), 32, STEPS, threads)


def guarded(case: tuple[str, str, int], pairs: int, device: str, threads: int) -> Row:
    torch.set_num_threads(threads)
    return measured(*case, pairs, device)


def jobs(args: argparse.Namespace) -> Iterator[tuple[Row, Any, tuple[Any, ...]]]:
    about = environment(args.threads)
    for case in CASES:
        row = dict(zip(("method", "backbone", "batch"), case, strict=True)) | {"device": args.device}
        row |= {"kind": "guards", "kept": True, "round": 0, "environment": about}
        yield row, guarded, (case, args.pairs, args.device, args.threads)
    for number, kept in product(range(ROUNDS if args.device == "cpu" else 0), (True, False)):
        row = {"method": "frossl", "backbone": PAGES[0], "batch": PAGES[1], "device": "cpu"}
        row |= {"kind": "pages", "kept": kept, "round": number, "environment": about}
        yield row, with_pages, (kept, *PAGES, args.threads)


def show(rows: list[Row], out: Path) -> str:
    """The page of results."""
    rows = measured_rows(rows, SAME)
    guards = [row for row in rows if row["kind"] == "guards"]
    note = (
        f"On {', '.join(dict.fromkeys(row['device'] for row in guards))}; images of noise of 32 pixels, two views, a "
        f"probe; {len(guards[0]['pairs'])} pairs of steps, medians with 95 % intervals; 7 saves, to the disk of the "
        f"temporary directory. The last column is {SAVES} saves in {RUN:.0f} s."
    )
    about = rows[-1]["environment"]
    columns = ["method", "encoder", "batch", "step, ms", "guards, more of a step", "guards alone, ms", "of the step"]
    columns += ["checkpoint, MiB", "save, s", "slowest", "load, s", "of a run"]
    page = [heading("What reliability costs", "python benchmarks/overheads.py; --table", about, note)]
    page.append(table(columns, map(line, guards)))
    if pages := [row for row in rows if row["kind"] == "pages"]:
        lines = []
        for kept in (True, False):
            own = [row for row in pages if row["kept"] == kept]
            figures = (", ".join(f"{row[name]:.0f}" for row in own) for name in ("step_ms", "peak_mib"))
            lines.append(["kept" if kept else "returned", *figures])
        page += [
            "## Freed pages",
            "The command line keeps the memory that it frees on a CPU (`keep_freed_pages`); glibc else returns blocks "
            "of 32 MiB and more, and maps them anew at each step. Processes with and without in turn, recipe "
            f"`{PAGES[0]}` at batch {PAGES[1]}, median of {STEPS} steps.",
            table(["freed pages", "step, ms", "peak above the process before, MiB"], lines),
        ]
    return "\n\n".join([*page, f"Rows: `{out.name}`."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--device", choices=get_args(Device), default="cpu")
    args = parse_arguments(parser, "overheads.jsonl", threads=1)
    print(show(read_or_run(args, jobs(args), SAME), args.out))


if __name__ == "__main__":
    main()
