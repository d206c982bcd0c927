"""Runs killed at random moments, and runs stopped within an epoch, against the run that nobody stopped.

    python benchmarks/stops.py [--kills 50] [--positions 20] [--table]

Small runs of 24 steps on 38 images with a save every 3 steps, by one process and by two gloo ranks; methods take turns.
A kill (SIGKILL) hits all ranks or one of them at a moment drawn uniformly from the time a run takes, saves included.
Rows go to ``docs/results/data/stops.jsonl``, and what is there is not done again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import DATA, Row, environment, latest, run_jobs, table
from frossl.train.log import read_rows

for _room in ("", "train"):
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / _room))
from stop_runs import TRAINED, killed_once, stopped_midway, timed  # noqa: E402
from test_train_loop import folder_of_images  # noqa: E402

SAME = ("study", "ranks", "workers", "number")
SIZES = ((16, 16), (20, 14), (33, 40))


def kill(number: int, method: str, ranks: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        images, out = folder_of_images(Path(folder) / "images"), Path(folder) / "runs"
        seconds = timed(images, out, "whole", ranks, method=method)
        return {"whole_seconds": seconds, **killed_once(images, out, number, method, ranks, out / "whole", seconds)}


def stop(step: int, workers: int, ranks: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        images, out = folder_of_images(Path(folder) / "images", sizes=SIZES), Path(folder) / "runs"
        timed(images, out, "whole", ranks, seen=True, workers=workers, size=16)
        return stopped_midway(images, out, step, workers, ranks, out / "whole")


def jobs(kills: int, positions: int) -> Iterator[tuple[Row, Callable[..., Row], tuple[Any, ...]]]:
    about = environment(1)
    for ranks in (1, 2):
        for number in range(kills):
            method = TRAINED[number % len(TRAINED)]
            row = {"study": "kill", "ranks": ranks, "workers": 0, "number": number, "method": method}
            yield row | {"environment": about}, kill, (number, method, ranks)
        for workers in (0, 2):
            steps = random.Random(ranks * 10 + workers).choices(range(1, 24), k=positions)
            for number, step in enumerate(steps):
                row = {"study": "stop", "ranks": ranks, "workers": workers, "number": number, "step": step}
                yield row | {"environment": about}, stop, (step, workers, ranks)


def show(rows: list[Row]) -> str:
    rows = [row for row in latest(rows, SAME) if "error" not in row]
    lines = []
    for study in ("kill", "stop"):
        for ranks in (1, 2):
            for workers in (0, 2):
                of = [r for r in rows if (r["study"], r["ranks"], r["workers"]) == (study, ranks, workers)]
                if not of:
                    continue
                same = f"{sum(r['same'] for r in of)} of {len(of)}"
                if study == "kill":
                    lost, early = max(r["lost_steps"] for r in of), sum(r["saved_step"] == 0 for r in of)
                    what = f"{sum(r['resumed'] for r in of)} resumed; at most {lost} steps since the last save lost; "
                    what += f"{len({r['method'] for r in of})} methods; {early} before the first save"
                else:
                    counts = ", ".join(f"{sum(r[c] for r in of)} {c}" for c in ("repeated", "missed", "differing"))
                    what = f"batches {counts}"
                lines.append(["killed" if study == "kill" else "stopped midway", ranks, workers, same, what])
    return table(["study", "ranks", "workers", "bit for bit the same run", "what was seen"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--positions", type=int, default=20)
    parser.add_argument("--out", type=Path, default=DATA / "stops.jsonl")
    parser.add_argument("--table", action="store_true", help="only print the table of what --out has")
    args = parser.parse_args()
    rows = read_rows(args.out) if args.table else run_jobs(jobs(args.kills, args.positions), args.out, SAME)
    print(show(rows))


if __name__ == "__main__":
    main()
