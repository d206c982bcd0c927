"""What telemetry costs: pairs of runs with and without it, one after the other, as shares of the wall time.

    python benchmarks/telemetry.py --data cifar10 [--pairs 5] [--length 400it] [--threads 2]

Everything else is equal, the monitor included. The first 500 steps are the dearest, as spectra and vitals come more
often then, so a whole run costs less than these 400 steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console

from common import NEVER, environment, heading, table
from frossl.core.length import Length
from frossl.data.types import Dataset
from frossl.recipes import RECIPES
from frossl.train.config import Config, make_plan
from frossl.train.loop import build, train
from frossl.train.run import open as open_data


def wall(config: Config, data: Dataset) -> float:
    """Seconds of a whole run, its directory thrown away."""
    learner, plan = build(config, make_plan(config, data), len(data.classes))
    with tempfile.TemporaryDirectory() as directory:
        start = time.perf_counter()
        train(learner, config, plan, data, Length.parse(config.length), Path(directory))
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--recipe", default="cifar10-cpu")
    parser.add_argument("--length", default="400it")
    parser.add_argument("--every", type=int, default=Config.telemetry_every)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = dataclasses.replace(
        RECIPES[args.recipe](), data=args.data, length=args.length, monitor_every="50%", checkpoint_every=NEVER
    )
    data = open_data(config, Console(quiet=True))
    wall(dataclasses.replace(config, length="5it", monitor_every=NEVER), data)  # warms up
    rows, extra = [], []
    for pair in range(args.pairs):
        order = (0, args.every) if pair % 2 == 0 else (args.every, 0)
        took = {every: wall(dataclasses.replace(config, telemetry_every=every), data) for every in order}
        extra.append(100 * (took[args.every] / took[0] - 1))
        rows.append([pair + 1, f"{took[0]:.2f}", f"{took[args.every]:.2f}", f"{extra[-1]:+.2f}"])
    command = f"python benchmarks/telemetry.py --length {args.length} --pairs {args.pairs} --threads {args.threads}"
    note = (
        f"Recipe {args.recipe}, runs of {args.length} with 2 looks of the monitor, telemetry every {args.every} steps "
        f"against never; pairs in turn, first without and first with. Median {statistics.median(extra):+.2f} %, "
        f"from {min(extra):+.2f} to {max(extra):+.2f} %."
    )
    print(heading("What telemetry costs", command, environment(args.threads), note))
    print("\n" + table(["pair", "without, s", "with, s", "more, %"], rows))


if __name__ == "__main__":
    main()
