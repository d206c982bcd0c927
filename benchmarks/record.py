"""The record: the best features of CIFAR-10 without labels after ten minutes on two cores.

    python benchmarks/record.py --data path/to/cifar10 [--minutes 2.5] [--seeds 0 1] [--only NAME ...]
    python benchmarks/record.py --final --data path/to/cifar10 --only NAME --minutes 10 --seeds 0 1 2 --threads 2
    python benchmarks/record.py --table > docs/results/record.md

A variant is a line of options of frossl pretrain in ``record.toml``, beside the recipe as it was before the first
record; a view recipe of its own stands there too. A search scores on a tenth of the training images, on which it does
not train, and never reads the test images; a run has one thread, so that on two cores two searches (say, of two seeds)
can be done beside each other. ``--final`` trains on all training images and reads the test images once, at the end of
each run. To beat the record, add a line, search, and only then ask for the final runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import statistics
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import record_parts
from common import Row, environment, heading, measured_rows, parse_arguments, read_or_run, spread, summary, table
from frossl.commands.pretrain import parse
from frossl.core.config import from_plain
from frossl.runs.config import Config
from frossl.views.recipes import VIEWS, View
from training import BEFORE_RECORD, images_of, measure_pixels, pretrain_and_evaluate

VARIANTS = Path(__file__).with_suffix(".toml")
GROUP = ("kind", "data", "recipe", "minutes", "threads")
SAME = (*GROUP, "variant", "seed")
COLUMNS = {"kNN": ("knn", 4), "linear": ("linear", 4), "10 labels": ("linear_10", 4), "rank": ("effective_rank", 1)}
START, PIXELS = "as it is", "raw pixels"
METRICS, VALIDATION, DRAWS = ("knn", "linear", "rank"), 0.1, 5
GOALS = {"knn": 0.65, "linear": 0.67}
"""Of the final runs on CIFAR-10, set before the search."""


def variants() -> dict[str, Any]:
    """The table of variants: ``options`` by name, those by ``data``, how they ``begin``, and ``views`` of their own."""
    return tomllib.loads(VARIANTS.read_text())


def config_of(name: str, data: str, minutes: float, seed: int, recipe: str) -> Config:
    """The configuration of a variant; its view recipe is made known to this process."""
    known = variants()
    for view, groups in known["views"].items():
        if view not in VIEWS:
            VIEWS.add(view, tuple(from_plain(View, group) for group in groups))
    always = known["data"].get(Path(data).name, "")
    given = [data, "--recipe", recipe, *shlex.split(always), *shlex.split(known["options"][name])]
    return dataclasses.replace(parse(given, "record", **BEFORE_RECORD).config, length=f"{minutes}min", seed=seed)


def measured(kind: str, threads: int, *which: Any) -> Row:
    """The row of a run."""
    config = config_of(*which)
    part = VALIDATION if kind == "search" else None
    if which[0] == PIXELS:
        return measure_pixels(config, threads, draws=DRAWS, data=images_of(config, part), metrics=METRICS)
    begin, share = (variants()[part].get(which[0]) for part in ("begin", "share"))
    how = ({"begin": getattr(record_parts, begin)} if begin else {}) | ({"share": share} if share else {})
    return {"config": summary(config)} | pretrain_and_evaluate(config, threads, METRICS, part, DRAWS, **how)


def jobs(args: argparse.Namespace) -> Iterator[tuple[Row, Any, tuple[Any, ...]]]:
    """Every variant, seed by seed."""
    options, kind = variants()["options"], "final" if args.final else "search"
    about = environment(args.threads, "timm")
    for seed, name in product(args.seeds, args.only or options):
        row = {"kind": kind, "data": Path(args.data).name, "recipe": args.recipe, "variant": name, "seed": seed}
        row |= {"minutes": args.minutes, "threads": args.threads, "options": options[name], "environment": about}
        yield row, measured, (kind, args.threads, name, args.data, args.minutes, seed, args.recipe)


def gains(found: list[Row], base: dict[int, Row], field: str) -> str:
    """How many points ``found`` are ahead of the rows of ``base`` with the same seeds, by ``field``."""
    return spread([100 * (row[field] - base[row["seed"]][field]) for row in found if row["seed"] in base], 1)


def page(rows: list[Row], final: bool) -> str:
    """A line for each variant: final ones by date, others by the linear probe, the best first.

    Gains are over the recipe as it was, or without it over the variant that was run first.
    """
    names = [row["variant"] for row in rows]
    base = {row["seed"]: row for row in rows if row["variant"] == (START if START in names else names[0])}
    lines: list[tuple[Any, list[object]]] = []
    for name in dict.fromkeys(names):
        found = [row for row in rows if row["variant"] == name]
        date = found[0]["environment"]["date"]
        values = [spread([row.get(field) for row in found], digits) for field, digits in COLUMNS.values()]
        seen = [row["steps"] * row["config"]["batch"] for row in found if row.get("steps")]
        images = f"{statistics.fmean(seen):,.0f}" if seen else "–"
        ahead = [gains(found, base, field) for field in GOALS]
        given = f"`{found[0]['options']}`" if found[0]["options"] else variants()["begin"].get(name, "")
        order = date if final else -statistics.fmean(row["linear"] for row in found)
        lines.append((order, [date, name, given, len(found), images, *values, *ahead]))
    headings = ["date", "variant", "options", "seeds", "images", *COLUMNS, "kNN, points", "linear, points"]
    return table(headings, [line for _, line in sorted(lines, key=lambda line: line[0])])


def show(rows: list[Row], out: Path) -> str:
    """The page of results."""
    rows = measured_rows(rows, SAME)
    goals = " and ".join(f"{name} {goal}" for name, goal in GOALS.items())
    note = (
        f"Goals for ten minutes on two cores, set before the search: {goals}. ± is half the 95 % interval over seeds "
        "(Student's t), which of two seeds is 9 standard deviations; points are over "
        f"'{START}', or over the variant that was run first, with the same seeds. Runs are equal in time, not in "
        f"images, and the machine's speed differs from day to day. 10 labels: mean over {DRAWS} draws. "
        "A search scores on a tenth of the training images, which are kept aside, and a final run "
        f"on the test images, read once. Rows: `{out.name}`; variants: `benchmarks/record.toml`."
    )
    command = "python benchmarks/record.py --data DATA --minutes MINUTES --seeds SEEDS [--final --only NAME]; --table"
    parts = [heading("Records", command, rows[-1]["environment"], note)]
    for kind, data, recipe, minutes, threads in dict.fromkeys(tuple(row[name] for name in GROUP) for row in rows):
        same = [row for row in rows if tuple(row[name] for name in GROUP) == (kind, data, recipe, minutes, threads)]
        parts.append(f"## {kind.capitalize()}: {data}, {recipe}, {minutes:g} minutes, threads: {threads}")
        parts.append(page(same, kind == "final"))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--recipe", default="cifar10-cpu")
    parser.add_argument("--minutes", type=float, default=2.5)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--only", nargs="+", choices=list(variants()["options"]), help="names of variants")
    parser.add_argument("--final", action="store_true", help="train on all, and read the test images at the end")
    args = parse_arguments(parser, "record.jsonl", threads=1)
    if args.final and not args.only and not args.table:
        parser.error("--final reads the test images: name the variants that the search chose (--only)")
    print(show(read_or_run(args, jobs(args), SAME), args.out))


if __name__ == "__main__":
    main()
