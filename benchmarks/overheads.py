"""What reliability costs: guards in a step, and checkpoints at their default interval.

    python benchmarks/overheads.py [--steps 15] [--threads 1]

The guards' own operations (copies of batch-norm statistics, the flag, what is chosen by it) are timed by themselves and
given as a share of the step they are in, since whole steps with and without them differ by less than their noise. A
save is timed from the snapshot to the flushed directory.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from common import environment, heading, seconds, synthetic, table
from frossl.core.length import Length
from frossl.data.loader import training_batches
from frossl.methods import find_method
from frossl.train.checkpoint import load_checkpoint, save_checkpoint
from frossl.train.config import Config, make_plan
from frossl.train.loop import Progress, build, snapshot
from frossl.train.probe import OnlineProbe
from frossl.train.ranks import start
from frossl.train.step import Stepper, _copy

INTERVAL = 600.0
"""Seconds between saves by default."""


def guards(take: Stepper, total: torch.Tensor) -> None:
    """What a step does beside learning."""
    _copy(take.before, take.buffers)
    take._judge(0, total, {"entropy": total, "invariance": total}, total)
    for buffer, before in zip(take.buffers, take.before, strict=True):
        torch.where(take.good.bool(), buffer, before, out=buffer)
    bool(take.good)


def measured(method: str, backbone: str, batch: int, steps: int) -> list[str]:
    config = Config(
        data="noise",
        method=method,
        objective=find_method(method).Config(),
        backbone=backbone,
        batch=batch,
        device="cpu",
    )
    data = synthetic(1024, 32)
    learner, plan = build(config, make_plan(config, data), len(data.classes))
    probe = OnlineProbe(plan.spec.features, len(data.classes))
    take = Stepper(learner, config, plan, start(config), probe)
    learner.train()
    batches = training_batches(data, plan.recipe, batch=batch, seed=0)
    steps_s, guards_s = [], []
    total = torch.ones(())
    for step in range(3 + steps):
        began = time.perf_counter()
        take(next(batches), step, 0.5, 2.0)
        took = time.perf_counter() - began
        extra = seconds(lambda: guards(take, total))
        if step >= 3:
            steps_s.append(took)
            guards_s.append(extra)
    progress = Progress(Length(1, "ep"), 100, 1)
    with tempfile.TemporaryDirectory() as folder:
        saves = [
            seconds(lambda: save_checkpoint(Path(folder), 1, snapshot(progress, learner, take.optimizer, probe)))
            for _ in range(5)
        ]
        path = save_checkpoint(Path(folder), 1, snapshot(progress, learner, take.optimizer, probe))
        loads = [seconds(lambda: load_checkpoint(path)) for _ in range(3)]
        size = path.stat().st_size / 2**20
    step, guard, save = (statistics.median(values) for values in (steps_s, guards_s, saves))
    return [
        f"`{method}`",
        f"`{backbone}`",
        str(batch),
        f"{step * 1e3:.0f}",
        f"{guard * 1e3:.2f}",
        f"{100 * guard / step:.2f} %",
        f"{size:.0f}",
        f"{save:.2f}",
        f"{statistics.median(loads):.2f}",
        f"{100 * save / INTERVAL:.2f} %",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    note = f"Images of noise of 32 pixels, two views; medians of {args.steps} steps and 5 saves."
    print(heading("What reliability costs", "python benchmarks/overheads.py", environment(args.threads), note), "\n")
    columns = ["method", "encoder", "batch", "step, ms", "guards, ms", "of the step"]
    columns += ["checkpoint, MiB", "save, s", "load, s", f"of {INTERVAL:.0f} s"]
    cases = (("frossl", "resnet18", 128), ("byol", "resnet18", 128), ("frossl", "resnet18", 32))
    print(table(columns, [measured(*case, args.steps) for case in cases]))


if __name__ == "__main__":
    main()
