"""A training step in parts: its memory and time, with activations kept or computed again, and whether it is the step.

    python benchmarks/micro_batch.py [--batch 256] [--steps 2] [--table]

Each cell is a process of its own, on noise of 32 pixels. The peak is of the whole process over what it had before
there was a model; the estimate is what ``frossl pretrain`` plans with. Time is that of the processor, which other
processes disturb less than they do a clock. Gradients of every method are compared with those of the whole batch, with
an encoder without batch norm. Rows go to ``docs/results/data/micro-batch.jsonl``, and what is there is not done again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from common import (
    Row,
    environment,
    heading,
    measured_rows,
    parse_arguments,
    read_or_run,
    resident_mib,
    table,
    warm_allocator,
)
from frossl.commands.bench import noise
from frossl.data.loader import training_batches
from frossl.runs.config import Config
from frossl.train.loop import build
from frossl.train.memory import need
from frossl.train.ranks import start
from frossl.train.step import Stepper

for _room in ("", "train"):
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / _room))
from test_train_guard import TRAINED, narrow  # noqa: E402

SAME = ("encoder", "batch", "chunks", "recompute")
CHUNKS = (1, 2, 4, 8)
SMALL = '{"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}'
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
    data = noise(2 * batch, 32)
    before = resident_mib("VmRSS")
    learner, plan = build(config, data)
    estimate = need(learner, plan, data)
    learner, plan = build(config, data)
    take = Stepper(learner, plan, start(config))
    learner.train()
    batches = training_batches(data, plan.recipe, batch=batch, seed=0, device=plan.device)
    times = []
    for step in range(1 + steps):
        views = next(batches)
        began = time.process_time()
        take(views, step, 0.5, 0.5)
        take.check()
        times.append(time.process_time() - began)
    return {
        "step_ms": statistics.median(times[1:]) * 1e3,
        "peak_mib": resident_mib("VmHWM") - before,
        "estimate_mib": estimate.step(-(-batch // plan.chunks)) / 2**20,
    }


def gradients(method: str, chunks: int, precision: str) -> torch.Tensor:
    """All gradients of a step on 32 images, one after the other, in float64."""
    config = Config(
        data="noise",
        method=method,
        objective=narrow(method),
        backbone="vit_tiny_patch16_224",
        backbone_options=SMALL,
        size=16,
        batch=32,
        micro_batch=32 // chunks,
        precision=precision,
        optimizer="sgd",
    )
    data = noise(64, 16)
    learner, plan = build(config, data)
    take = Stepper(learner, plan, start(config))
    learner.train()
    take(next(training_batches(data, plan.recipe, batch=32, seed=0, device=plan.device)), 0, 0.5, 5.0)
    take.check()
    return torch.cat([p.grad.double().flatten() for p in learner.parameters() if p.grad is not None])


def equality() -> Row:
    """Of every method the largest error of a gradient, relative to the largest entry of that of the whole batch."""
    torch.set_num_threads(1)
    found = []
    for method in TRAINED:
        whole = gradients(method, 1, "64")
        errors = {
            precision: [
                float((gradients(method, chunks, precision) - whole).abs().max() / whole.abs().max()) for chunks in of
            ]
            for precision, of in (("64", CHUNKS[1:]), ("32", CHUNKS))
        }
        found.append(
            {"method": method, "error64": errors["64"], "single32": errors["32"][0], "error32": errors["32"][1:]}
        )
    return {"found": found}


def jobs(args: argparse.Namespace) -> Iterator[tuple[Row, Callable[..., Row], tuple[Any, ...]]]:
    about = environment(args.threads)
    for encoder in ENCODERS:
        for recompute in (False, True):
            for chunks in CHUNKS:
                row = {
                    "encoder": encoder,
                    "batch": args.batch,
                    "chunks": chunks,
                    "recompute": recompute,
                    "method": "frossl",
                }
                yield (
                    row | {"environment": about, "steps": args.steps},
                    cell,
                    (encoder, args.batch, chunks, recompute, args.steps, args.threads),
                )
    row = {"encoder": "small vit", "batch": 32, "chunks": 8, "recompute": False}
    yield row | {"environment": about}, equality, ()


def show(rows: list[Row]) -> str:
    rows = measured_rows(rows, SAME)
    compared = [found for row in rows for found in row.get("found", [])]
    rows = [row for row in rows if "found" not in row]
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
        f"of {rows[-1]['steps']}; time of the processor, one thread. Memory in MiB: the peak of the process over what "
        "it had without a model, and the estimate that is planned with."
    )
    columns = ["encoder", "parts", "activations", "peak", "of one part", "estimate", "ms per step", "of one part"]
    worst64 = max(max(row["error64"]) for row in compared)
    within = sum(max(row["error32"]) <= max(1e-5, 3 * row["single32"]) for row in compared)
    same = (
        "Largest error of the gradients, relative to the largest of the gradients of the whole batch in float64. 32 "
        "images in 2, 4 and 8 parts, a transformer of 24 channels, narrow heads. float64: at most "
        f"{worst64:.1e}. float32: {within} of {len(compared)} methods within the larger of 1e-5 and 3 times the error "
        "of the whole batch in float32 (last column). LeJEPA draws its directions in the precision it computes in, so "
        "its float32 is of other directions than its float64."
    )
    parts = [
        [
            f"`{row['method']}`",
            *(f"{e:.1e}" for e in (*row["error64"], *row["error32"], row["single32"])),
        ]
        for row in compared
    ]
    heads = [f"{kind}, {chunks} parts" for kind in ("float64", "float32") for chunks in CHUNKS[1:]]
    return "\n\n".join(
        [
            heading("A large batch in parts", "python benchmarks/micro_batch.py; --table", about, note),
            table(columns, lines),
            f"## Is it the same gradient?\n\n{same}",
            table(["method", *heads, "float32, whole"], parts),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    args = parse_arguments(parser, "micro-batch.jsonl", threads=1)
    print(show(read_or_run(args, jobs(args), SAME)))


if __name__ == "__main__":
    main()
