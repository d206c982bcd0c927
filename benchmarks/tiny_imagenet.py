"""A few methods at 64 pixels for the same number of images, beside the untrained encoder.

    python benchmarks/tiny_imagenet.py --data path/to/parquet [--images 60000] [--threads 2] [--seeds 0]
    python benchmarks/tiny_imagenet.py --table > docs/results/tiny-imagenet.md

Recipe cifar10-cpu but for its views, which are those of natural images. One process per run; finished rows of --out
are not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import (
    Row,
    environment,
    heading,
    latest,
    parse_arguments,
    read_or_run,
    seeds_in_words,
    spread,
    summary,
    table,
)
from frossl.methods import find_method
from frossl.runs.config import Config
from training import measure_pixels, pretrain_and_evaluate, recipe_of_studies

ARMS = {
    "FroSSL, 2 views": ("frossl", 2),
    "FroSSL, 4 views": ("frossl", 4),
    "VICReg": ("vicreg", 2),
    "SimCLR": ("simclr", 2),
    "MMCR": ("mmcr", 2),
    "untrained": ("random", 2),
}
PIXELS = "raw pixels"
SAME = ("arm", "seed", "images")


def config_of(arm: str, data: str, images: int, seed: int) -> Config:
    method, views = ARMS[arm]
    return dataclasses.replace(
        recipe_of_studies(),
        data=data,
        method=method,
        objective=find_method(method).Config(),
        views=views,
        view_recipe="natural",
        length=f"{images}img",
        seed=seed,
    )


def jobs(args: argparse.Namespace) -> Iterator[tuple[Row, Any, tuple[Any, ...]]]:
    about = environment(args.threads)
    for seed in map(int, args.seeds.split(",")):
        for arm in ARMS:
            config = config_of(arm, args.data, args.images, seed)
            row = {"arm": arm, "seed": seed, "images": args.images, "config": summary(config), "environment": about}
            yield row, pretrain_and_evaluate, (config, args.threads)
    row = {"arm": PIXELS, "seed": 0, "images": args.images, "environment": about}
    yield row, measure_pixels, (config_of("untrained", args.data, args.images, 0), args.threads)


def show(rows: list[Row], out: Path) -> str:
    """The page of results."""
    rows = latest(rows, SAME)
    images = max(row["images"] for row in rows)
    rows = [row for row in rows if row["images"] == images and "error" not in row]
    columns = {"knn": 3, "linear": 3, "effective_rank": 1, "step_ms": 0, "training_minutes": 1}
    lines = []
    for arm in (*ARMS, PIXELS):
        found = [row for row in rows if row["arm"] == arm]
        lines.append([arm, *(spread([row.get(name) for row in found], digits) for name, digits in columns.items())])
    about, held_out = rows[0]["environment"], rows[0]["held_out"]
    seeds = sorted({row["seed"] for row in rows})
    batch = rows[0]["config"]["batch"]
    note = (
        f"{images:,} images of 64 pixels, batch {batch}, {seeds_in_words(seeds)}. kNN and linear: top-1 "
        f"accuracy on {held_out:,} held-out images, two standard errors of which are up to "
        f"{200 * math.sqrt(0.25 / held_out):.1f} points; rank: effective rank of their features. All methods have the "
        "optimiser and rate of `cifar10-cpu`, which were chosen for FroSSL with two views on CIFAR-10 (two-cores.md), "
        "their default options and the same views; 4 views cost twice the time of 2."
    )
    command = (
        f"python benchmarks/tiny_imagenet.py --data path/to/parquet --images {images} --threads {about['threads']}"
    )
    headings = ["method", "kNN", "linear", "rank", "ms / step", "minutes"]
    page = [heading("64 pixels, two cores", f"{command}; --table", about, note), table(headings, lines)]
    return "\n\n".join([*page, f"Rows: `{out.name}`."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="folder of Parquet files with labels")
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--seeds", default="0", help="joined by commas")
    args = parse_arguments(parser, "tiny-imagenet.jsonl", threads=2, required="data")
    rows = read_or_run(args, jobs(args), SAME)
    print(show(rows, args.out))


if __name__ == "__main__":
    main()
