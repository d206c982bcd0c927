"""How long a report takes, from the command to the file, and how large it is.

    python benchmarks/report_time.py runs/NAME [runs/OTHER ...] [--rounds 3] > docs/results/report.md
    python benchmarks/report_time.py --table > docs/results/report.md

Every report is a process of its own. "start" is Python with its libraries, "images" opens the data, "encoder" looks at
them with the trained and the untrained encoder, "page" is what is computed from these features and written.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from common import Row, environment, heading, parse_arguments, table, write_rows
from frossl.report import page, run_summary
from frossl.runs.log import read_rows
from frossl.runs.record import read_record

PARTS = ("start", "images", "encoder", "page")
GOAL = 20.0
"""Seconds, at most."""
REMARK = (
    "A page may have 15 MB. An earlier measurement on an AMD EPYC (torch 2.15.0, 23 November "
    "2026), whose rows were not kept, had 16.3 s for CIFAR-10, and 8.9 s for Fashion-MNIST, which comes as an array. "
    "More than half of the time is the decoding of 60,000 PNG files out of Parquet, by one thread; at the end of a run "
    "the images are open already."
)


def once(run: Path, output: Path) -> Row:
    """Seconds of the parts of one report."""
    took: dict[str, float] = dict.fromkeys(PARTS[1:], 0.0)

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            made = function(*args, **kwargs)
            took[part] += time.perf_counter() - began
            return made

        return call

    with (
        patch.object(run_summary, "find_run_data", timed("images", run_summary.find_run_data)),
        patch.object(run_summary, "inspect_encoder", timed("encoder", run_summary.inspect_encoder)),
    ):
        timed("page", page.write_report)([run], output)
    return took | {"page": took["page"] - took["images"] - took["encoder"]}


def build(run: Path) -> Row:
    """One report of ``run`` in a process of its own: seconds in all and of its parts, and its size in MB."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "report.html"
        began = time.perf_counter()
        made = subprocess.run(
            [sys.executable, __file__, str(run), "--once", str(output)], check=True, capture_output=True, text=True
        )
        whole = time.perf_counter() - began
        took = json.loads(made.stdout)
        return took | {"whole": whole, "start": whole - sum(took.values()), "size": output.stat().st_size / 1e6}


def described(run: Path) -> Row:
    """What a reader wants to know of ``run``."""
    record = read_record(run)
    images = dict(zip(("train", "held_out"), record.about["images"], strict=True))
    config, features = record.config, record.about["encoder"]["features"]
    return {"run": run.name, "data": Path(config["data"]).name, **images} | {
        "backbone": config["backbone"],
        "features": features,
    }


def line(built: list[Row]) -> list[str]:
    """A line of the table: medians over rounds."""
    first = built[0]
    middle = {name: statistics.median(b[name] for b in built) for name in ("whole", "size", *PARTS)}
    whole = [b["whole"] for b in built]
    told = [
        f"`{first['data']}`",
        f"{first['train']:,} + {first['held_out']:,}",
        f"`{first['backbone']}`, {first['features']} wide",
        f"**{middle['whole']:.1f}** ({min(whole):.1f} to {max(whole):.1f})",
    ]
    return [*told, *(f"{middle[part]:.1f}" for part in PARTS), f"{middle['size']:.1f}"]


def show(rows: list[Row], out: Path) -> str:
    """The page of results."""
    by_run: dict[str, list[Row]] = {}
    for row in rows:
        by_run.setdefault(row["run"], []).append(row)
    rounds = len(next(iter(by_run.values())))
    command = f"python benchmarks/report_time.py {' '.join(f'runs/{name}' for name in by_run)} --rounds {rounds}"
    note = f"Medians of {rounds} reports, each in a process of its own; the lowest and highest in brackets."
    slowest = max(statistics.median(row["whole"] for row in built) for built in by_run.values())
    goal = f"The goal of {GOAL:g} s was {'reached' if slowest <= GOAL else 'missed'}."
    columns = ["data", "images, training + held out", "encoder", "seconds", *(f"{part}, s" for part in PARTS), "MB"]
    return "\n\n".join(
        [
            heading("How long a report takes", f"{command}; --table", rows[-1]["environment"], note),
            table(columns, map(line, by_run.values())),
            f"{goal} {REMARK}",
            f"Rows: `{out.name}`.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    args = parse_arguments(parser, "report.jsonl")
    if args.once:
        print(json.dumps(once(args.runs[0], args.once)))
        return
    if not args.table:
        about = environment(torch.get_num_threads(), "plotly")
        write_rows(args.out, (described(run) | build(run) for run in args.runs for _ in range(args.rounds)), about)
    print(show(read_rows(args.out), args.out))


if __name__ == "__main__":
    main()
