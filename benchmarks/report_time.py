"""How long a report takes, from the command to the file, and how large it is.

    python benchmarks/report_time.py runs/NAME [runs/OTHER ...] [--rounds 3] > docs/results/report.md

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

from common import DATA, Row, environment, heading, table, write_rows
from frossl.report import page, run_summary
from frossl.runs.record import read_record

PARTS = ("start", "images", "encoder", "page")


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


def line(run: Path, built: list[Row]) -> list[str]:
    """A line of the table: medians over rounds."""
    record = read_record(run)
    middle = {name: statistics.median(b[name] for b in built) for name in built[0]}
    train, held_out = record.about["images"]
    whole = [b["whole"] for b in built]
    told = [
        f"`{Path(record.config['data']).name}`",
        f"{train:,} + {held_out:,}",
        f"`{record.config['backbone']}`, {record.about['encoder']['features']} wide",
        f"**{middle['whole']:.1f}** ({min(whole):.1f} to {max(whole):.1f})",
    ]
    return [*told, *(f"{middle[part]:.1f}" for part in PARTS), f"{middle['size']:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=DATA / "report.jsonl")
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        print(json.dumps(once(given.runs[0], given.once)))
        return
    columns = ["data", "images, training + held out", "encoder", "seconds", *(f"{part}, s" for part in PARTS), "MB"]
    built = {run: [build(run) for _ in range(given.rounds)] for run in given.runs}
    command = f"python benchmarks/report_time.py {' '.join(f'runs/{run.name}' for run in given.runs)}"
    note = f"Medians of {given.rounds} reports, each in a process of its own; the lowest and highest in brackets."
    about = environment(torch.get_num_threads(), "plotly")
    write_rows(given.out, ({"run": run.name} | row for run, rows in built.items() for row in rows), about)
    print(heading("How long a report takes", f"{command} --rounds {given.rounds}", about, note), end="\n\n")
    print(table(columns, [line(run, rows) for run, rows in built.items()]))
    print(f"\nRows: `{given.out.name}`.")


if __name__ == "__main__":
    main()
