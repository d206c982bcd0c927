"""The paper's study of time and memory: whole training steps of every method against views, batch and width.

    python benchmarks/efficiency.py [--processes 3] [--threads 2] [--only frossl,mmcr] [--vary views] [--quick]
    python benchmarks/efficiency.py --recipe cifar10-cpu --size 96 --backbone resnet50 --device cuda --out gpu.jsonl
    python benchmarks/efficiency.py --table > docs/results/efficiency.md

Images are noise in memory, of 32 pixels unless --size says otherwise; views, backbone, heads, objective and optimiser
are real, those of --recipe. One thing at a time is changed from 2 views, batch 128, width 1024, of those that --vary
names; --full takes every combination of them, --quick three methods, one process and one step. Each cell is measured
in several processes, the whole grid once before any cell a second time; finished rows of --out are not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import statistics
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from common import Row, environment, heading, measured_rows, parse_arguments, read_or_run, table
from frossl.methods import METHODS, find_method
from frossl.recipes import RECIPES
from frossl.runs.config import Config
from plot import BLUE, GREY, RED, Line, Panel, save_plot
from training import cost_on_noise, recipe_of_studies

GRID = {"views": (2, 4, 8), "batch": (128, 256), "width": (512, 1024, 2048)}
CENTRE = {"views": 2, "batch": 128, "width": 1024}
QUICK = ("frossl", "mmcr", "simclr")
WHERE = ("recipe", "backbone", "size", "device")
SAME = ("method", *GRID, *WHERE, "steps", "process")
LEAST = 30
"""Steps of a process whose median is worth keeping."""
FIELDS = ("step_ms", "alone_ms", "peak_mib")
FIXED_OUTPUT = ("wmse",)
"""Whose output must be narrower than the batch has images: only hidden layers get the width."""


def config_of(args: argparse.Namespace, method: str, views: int, batch: int, width: int) -> Config:
    objective = find_method(method).Config()
    inner = r"\d+(?=-.*\d)" if method in FIXED_OUTPUT else r"\d+"
    changes: dict[str, Any] = {"projector": re.sub(inner, str(width), objective.projector)}
    if hasattr(objective, "predictor_width"):
        changes["predictor_width"] = width if method == "byol" else width // 4
    recipe = recipe_of_studies(args.recipe)
    net = {"backbone": args.backbone, "backbone_options": "{}"} if args.backbone else {}
    return dataclasses.replace(
        recipe,
        **net,
        size=args.size,
        device=args.device,
        method=method,
        objective=dataclasses.replace(objective, **changes),
        views=views,
        batch=batch,
        length="100ep",
    )


def cells(full: bool, vary: Sequence[str]) -> list[dict[str, int]]:
    """The centre first; then what differs from it in one thing of ``vary``, or in any of them."""
    values = ((*GRID[name],) if name in vary else (CENTRE[name],) for name in GRID)
    every = [dict(zip(GRID, of, strict=True)) for of in product(*values)]
    differ = {i: sum(cell[name] != CENTRE[name] for name in GRID) for i, cell in enumerate(every)}
    return [every[i] for i in sorted(differ, key=lambda i: differ[i]) if full or differ[i] <= 1]


def jobs(args: argparse.Namespace) -> Iterator[tuple[Row, Any, tuple[Any, ...]]]:
    names = args.only.split(",") if args.only else QUICK if args.quick else [m for m in METHODS if m != "random"]
    steps, processes = (1, 1) if args.quick else (args.steps, args.processes)
    about = environment(args.threads)
    where = {"recipe": args.recipe, "backbone": args.backbone or recipe_of_studies(args.recipe).backbone}
    where |= {"size": args.size, "device": args.device}
    for process, cell, method in product(range(processes), cells(args.full, args.vary), names):
        row = {"method": method, **cell, **where, "steps": steps, "process": process, "environment": about}
        yield row, cost_on_noise, (config_of(args, method, **cell), args.size, steps, args.threads)


def middle(values: list[float], digits: int) -> str:
    """The median, and the lowest and highest if there are several."""
    low, mid, high = (f"{x:.{digits}f}" for x in (min(values), statistics.median(values), max(values)))
    return f"{mid} ({low}-{high})" if len(values) > 1 else mid


Cells = dict[tuple[str, int, int, int], dict[str, list[float]]]
"""Figures of each process, by method, views, batch and width."""


def cells_of(rows: list[Row]) -> Cells:
    found: Cells = {}
    for row in rows:
        same = found.setdefault((row["method"], *(row[name] for name in GRID)), {field: [] for field in FIELDS})
        for field in FIELDS:
            same[field].append(row[field])
    return found


def cell(found: Cells, method: str, name: str, value: int) -> dict[str, list[float]] | None:
    views, batch, width = (CENTRE | {name: value}).values()
    return found.get((method, views, batch, width))


def methods_of(found: Cells) -> list[str]:
    """Methods that were measured with 2 views, the fastest first."""
    centre = tuple(CENTRE.values())
    methods = {method for method, *at in found if tuple(at) == centre}
    return sorted(methods, key=lambda method: statistics.median(found[method, *centre]["step_ms"]))


def page(found: Cells, field: str, digits: int) -> str:
    """The table of a figure."""
    columns = [
        (f"{name[0].upper() if name == 'views' else name}{'=' if name == 'views' else ' '}{value}", name, value)
        for name, values in GRID.items()
        for value in values
        if name == "views" or value != CENTRE[name]
    ]
    columns = [column for column in columns if any(cell(found, m, *column[1:]) for m in methods_of(found))]
    lines = [
        [f"`{m}`", *(middle(r[field], digits) if (r := cell(found, m, *at)) else "–" for _, *at in columns)]
        for m in methods_of(found)
    ]
    return table(["method", *(title for title, _, _ in columns)], lines)


def draw(found: Cells, plot: Path) -> None:
    def panel(title: str, x: str, name: str, field: str, y: str) -> Panel:
        lines = []
        for m in methods_of(found):
            cells = ((value, cell(found, m, name, value)) for value in GRID[name])
            points = [(value, max(statistics.median(r[field]), 1.0)) for value, r in cells if r]
            if len(points) > 1:
                lines.append(Line(m, points, {"frossl": BLUE, "mmcr": RED}.get(m, GREY), m in ("frossl", "mmcr")))
        return Panel(title, x, y, lines)

    panels = [
        panel("Time against views", "views V", "views", "step_ms", "ms per step"),
        panel("Memory against views", "views V", "views", "peak_mib", "MiB"),
        panel("Time against width", "projector width", "width", "step_ms", "ms per step"),
        panel("Memory against width", "projector width", "width", "peak_mib", "MiB"),
    ]
    save_plot(plot, panels, [(BLUE, "FroSSL"), (RED, "MMCR, the other one made for many views"), (GREY, "the others")])


def section(rows: list[Row]) -> list[str]:
    """What was measured alike: how, and its tables."""
    last, found = rows[-1], cells_of(rows)
    about, device = last["environment"], last["device"]
    memory = (
        "the peak that PyTorch reserved on it" if device.startswith("cuda") else "the peak above the process before"
    )
    processes = sorted({len(r["step_ms"]) for r in found.values()})
    spread = (
        f"{' to '.join(map(str, dict.fromkeys((processes[0], processes[-1]))))} processes a cell: the median of their "
        "medians, and the lowest and highest in brackets; those far from the others were disturbed, and are kept"
        if processes[-1] > 1
        else "One process a cell, so that the spread between processes is not known"
    )
    how = (
        f"{device}, {last['precision']}, recipe {last['recipe']}, {last['backbone']}, threads: {about['threads']}. "
        f"Median of {last['steps']} steps after 2 that warm up, on images of {last['size']} pixels. {spread}. "
        f"Memory: {memory}."
    )
    if last["steps"] < LEAST:
        how += f" The script now takes {LEAST} steps or more in several processes; these rows were not made anew."
    return [
        f"## {about['processor']}, torch {about['torch']}, {about['date']}",
        how,
        "### Time of a step, ms",
        page(found, "step_ms", 0),
        "### Of that, heads and objective, forward and backward alone, ms",
        page(found, "alone_ms", 1),
        "### Peak memory, MiB",
        page(found, "peak_mib", 0),
    ]


def show(rows: list[Row], out: Path, plot: Path) -> str:
    """The page of results, what was measured last first; writes the plot of what has most steps."""
    alike: dict[tuple[Any, ...], list[Row]] = {}
    for row in measured_rows(rows, SAME):
        about = row["environment"]
        key = (*(row[name] for name in (*WHERE, "steps")), about["processor"], about["torch"])
        alike.setdefault(key, []).append(row)
    draw(cells_of(max(alike.values(), key=lambda same: (same[0]["steps"], len(same)))), plot)
    note = (
        "Whole training steps on 2,048 images of noise (seed 0); "
        + ", ".join(f"{name} {value}" for name, value in CENTRE.items())
        + " where nothing else is said. The width is that of all layers of the projector; W-MSE's output stays at 64, "
        "as it must be narrower than the batch. Averaged networks, where a method has one, are in it. Times of two "
        "machines are not to be compared."
    )
    command = "python benchmarks/efficiency.py --threads 2; --table"
    parts = [heading("Time and memory of training steps", command, rows[-1]["environment"], note)]
    parts += [text for same in reversed(alike.values()) for text in section(same)]
    parts += [
        f"![time and memory against views and width, of what has most steps]({plot.name})",
        f"Rows: `{out.name}`.",
    ]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=LEAST, help=f"of each process, {LEAST} or more")
    parser.add_argument("--processes", type=int, default=3, help="for each cell")
    parser.add_argument("--recipe", choices=list(RECIPES), default="cifar10-cpu")
    parser.add_argument("--backbone", help="of timm; that of the recipe if not given")
    parser.add_argument("--size", type=int, default=32, help="of images and views, in pixels")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu")
    parser.add_argument("--only", default="", help="methods joined by commas; all if not given")
    parser.add_argument("--vary", nargs="*", choices=list(GRID), default=list(GRID), help="what is changed")
    parser.add_argument("--full", action="store_true", help="every combination of views, batch and width")
    parser.add_argument("--quick", action="store_true", help="three methods, one step")
    parser.add_argument("--plot", type=Path, default=Path("docs/results/efficiency.svg"))
    args = parse_arguments(parser, "efficiency.jsonl", threads=2)
    if args.steps < LEAST and not args.quick:
        parser.error(f"--steps {args.steps}: the median of fewer than {LEAST} steps says little of a method")
    rows = read_or_run(args, jobs(args), SAME)
    print(show(rows, args.out, args.plot))


if __name__ == "__main__":
    main()
