"""Memory and time of a training step in parts, with activations kept or computed again.

    python benchmarks/micro_batch.py [--batch 512] [--steps 3] [--table]

Each cell is a process of its own, on noise of 32 pixels. The peak is of the whole process over what it had before
there was a model; the estimate is what ``frossl pretrain`` plans with. Rows go to
``docs/results/data/micro-batch.jsonl``, and what is there is not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from common import DATA, Row, environment, heading, latest, resident_mib, run_jobs, synthetic, table, warm_allocator
from frossl.data.loader import training_batches
from frossl.train.config import Config, make_plan
from frossl.train.log import read_rows
from frossl.train.loop import build
from frossl.train.memory import need
from frossl.train.ranks import start
from frossl.train.step import Stepper

SAME = ("encoder", "batch", "chunks", "recompute")
ENCODERS = {
    "resnet18": {},
    "vit_tiny_patch16_224": {"backbone_options": '{"patch_size": 4}', "size": 32},
}


def cell(encoder: str, batch: int, chunks: int, recompute: bool, steps: int, threads: int) -> Row:
    """Peak and time of one step."""
    torch.set_num_threads(threads)
    warm_allocator()
    config = Config(
        data="noise",
        backbone=encoder,
        batch=batch,
        micro_batch=-(-batch // chunks),
        activation_checkpointing=recompute,
        precision="32",
        **ENCODERS[encoder],
    )
    data = synthetic(2 * batch, 32)
    before = resident_mib("VmRSS")
    learner, plan = build(config, make_plan(config, data), len(data.classes))
    estimate = need(learner, config, plan, data)
    learner, plan = build(config, make_plan(config, data), len(data.classes))
    take = Stepper(learner, dataclasses.replace(config), plan, start(config))
    learner.train()
    batches = training_batches(data, plan.recipe, batch=batch, seed=0, device=plan.device)
    times = []
    for step in range(1 + steps):
        views = next(batches)
        began = time.perf_counter()
        take(views, step, 0.5, 0.5)
        take.check()
        times.append(time.perf_counter() - began)
    return {
        "step_ms": statistics.median(times[1:]) * 1e3,
        "peak_mib": resident_mib("VmHWM") - before,
        "estimate_mib": estimate.step(-(-batch // plan.chunks)) / 2**20,
    }


def jobs(args: argparse.Namespace) -> Iterator[tuple[Row, Callable[..., Row], tuple[Any, ...]]]:
    about = environment(args.threads)
    for encoder in ENCODERS:
        for recompute in (False, True):
            for chunks in (1, 2, 4, 8):
                row = {"encoder": encoder, "batch": args.batch, "chunks": chunks, "recompute": recompute}
                yield (
                    row | {"environment": about, "steps": args.steps},
                    cell,
                    (encoder, args.batch, chunks, recompute, args.steps, args.threads),
                )


def show(rows: list[Row]) -> str:
    rows = [row for row in latest(rows, SAME) if "error" not in row]
    about, lines = rows[-1]["environment"], []
    for row in rows:
        base = next(r for r in rows if (r["encoder"], r["chunks"], r["recompute"]) == (row["encoder"], 1, False))
        lines.append(
            [
                f"`{row['encoder']}`",
                row["chunks"],
                "computed again" if row["recompute"] else "kept",
                f"{row['peak_mib']:.0f}",
                f"{row['peak_mib'] / base['peak_mib']:.2f}",
                f"{row['estimate_mib']:.0f}",
                f"{row['step_ms']:.0f}",
                f"{row['step_ms'] / base['step_ms']:.2f}",
            ]
        )
    note = (
        f"Whole training steps of FroSSL, two views of 32 pixels, batch {rows[-1]['batch']}, float32, AdamW; medians "
        f"of {rows[-1]['steps']}. Memory in MiB: the peak of the process over what it had without a model, and the "
        "estimate that is planned with."
    )
    columns = ["encoder", "parts", "activations", "peak", "of one part", "estimate", "ms per step", "of one part"]
    return "\n\n".join(
        [
            heading("A large batch in parts", "python benchmarks/micro_batch.py; --table", about, note),
            table(columns, lines),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=DATA / "micro-batch.jsonl")
    parser.add_argument("--table", action="store_true", help="only print the page of what --out has")
    args = parser.parse_args()
    print(show(read_rows(args.out) if args.table else run_jobs(jobs(args), args.out, SAME)))


if __name__ == "__main__":
    main()
