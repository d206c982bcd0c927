"""Are eight bits inside enough? Images of 12 bits, trained on and evaluated with eight bits of their range or floats.

    python benchmarks/levels.py --data path/to/parquet [--images 12000] [--threads 1] [--seeds 0,1,2]
    python benchmarks/levels.py --table > docs/results/levels.md

Grey images of half the size of those in --data, each pixel the mean of twelve bytes, as 12-bit numbers. Their values
take some part of the intensity range, so that eight bits leave 256 levels, 16, and so on. The arms differ in
nothing but whether pixels are rounded to these levels. Scored is a fifth of the training images, on which nothing is
trained. Raw pixels of the same images are measured too: they are the same for every seed.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from common import (
    Row,
    elsewhere,
    environment,
    heading,
    measured_rows,
    parse_arguments,
    read_or_run,
    seeds_in_words,
    spread,
    table,
)
from frossl.data.arrays import from_tensors
from frossl.data.types import Dataset, Split
from frossl.methods import find_method
from frossl.runs.config import Config
from frossl.runs.data import load_run_data
from training import measure_pixels, pretrain_and_evaluate, recipe_of_studies

KINDS = {
    "whole range": (1.0, 1.0),
    "linear in light": (1.0, 2.2),
    "a 16th": (1 / 16, 1.0),
    "a 64th": (1 / 64, 1.0),
}
"""Share of the range that values take, in its middle, and the power they are raised to."""
ARMS = ("8 bits", "float")
UNTRAINED, PIXELS = "untrained, ", "raw pixels, "
"""Begin the names of controls: with the encoder as it starts, and without one."""
SAME = ("kind", "arm", "seed", "images")


def images_of(config: Config, kind: str, arm: str) -> Dataset:
    """The images of ``config`` as ``kind`` says, floats from 0 to 255, of which ``arm`` may leave whole ones alone."""
    whole = load_run_data(config)
    data = from_tensors(whole.train, classes=whole.classes, held_out=0.2)
    share, power = KINDS[kind]
    luma_C11 = torch.tensor([0.299, 0.587, 0.114])[:, None, None]

    def split(part: Split) -> Split:
        assert isinstance(part.images, torch.Tensor)
        grey = (F.avg_pool2d(part.images.float(), 2) * luma_C11).sum(1, keepdim=True) / 255
        of_12_bits = (grey.pow(power) * 4095).round() / 4095
        x = 255 * ((1 - share) / 2 + share * of_12_bits)
        return Split(x.round() if arm == "8 bits" else x, part.labels)

    train, test = split(data.train), split(data.test)
    assert isinstance(train.images, torch.Tensor)
    std, mean = torch.std_mean(train.images / 255)
    known = {"mean": (mean.item(),), "std": (std.item(),), "channels": 1}
    return dataclasses.replace(
        data, train=train, test=test, **known, smallest=(32, 32), largest=(32, 32), typical=(32, 32)
    )


def score(config: Config, kind: str, arm: str, threads: int) -> Row:
    data = images_of(config, kind, arm.removeprefix(PIXELS).removeprefix(UNTRAINED))
    assert isinstance(data.train.images, torch.Tensor)
    levels = len(data.train.images.unique())
    measure = measure_pixels if arm.startswith(PIXELS) else pretrain_and_evaluate
    return {"levels": levels, **measure(config, threads, data=data)}


def jobs(args: argparse.Namespace) -> Iterator[tuple[Row, Any, tuple[Any, ...]]]:
    about = environment(args.threads)
    seeds = list(map(int, args.seeds.split(",")))
    for seed in seeds:
        for kind in KINDS:
            pixels = [PIXELS + arm for arm in ARMS if seed == seeds[0]]
            for arm in (*ARMS, *(UNTRAINED + arm for arm in ARMS), *pixels):
                method = "random" if arm.startswith(UNTRAINED) else "frossl"
                config = dataclasses.replace(
                    recipe_of_studies(),
                    data=args.data,
                    method=method,
                    objective=find_method(method).Config(),
                    view_recipe="natural",
                    length=f"{args.images}img",
                    seed=seed,
                )
                row = {"kind": kind, "arm": arm, "seed": seed, "images": args.images, "environment": about}
                yield row, score, (config, kind, arm, args.threads)


def show(rows: list[Row], out: Path) -> str:
    """The page of results."""
    rows = measured_rows(rows, SAME)
    lines = []
    for kind in KINDS:
        for start, features in (("", "trained encoder"), (UNTRAINED, "untrained encoder"), (PIXELS, "raw pixels")):
            arms = [[row for row in rows if (row["kind"], row["arm"]) == (kind, start + arm)] for arm in ARMS]
            for name in ("knn", "linear") if all(arms) else ():
                gains = [a[name] - b[name] for a in arms[0] for b in arms[1] if a["seed"] == b["seed"]]
                values = (spread([row[name] for row in arm], 3) for arm in arms)
                gain = spread([100 * gain for gain in gains], 1)
                lines.append([kind, arms[0][0]["levels"], features, name, *values, gain])
    about, first = rows[0]["environment"], rows[0]
    seeds = sorted({row["seed"] for row in rows})
    note = (
        f"{first['images']:,} training images seen, 32 pixels, recipe `cifar10-cpu` with natural views, "
        f"{seeds_in_words(seeds)}; top-1 accuracy on {first['held_out']:,} held-out training images. The last column "
        "is the difference in points, seed by seed; raw pixels do not depend on the seed."
        f"{elsewhere(rows)}"
    )
    command = (
        f"python benchmarks/levels.py --data path/to/parquet --images {first['images']} --threads {about['threads']}"
    )
    headings = ["values take", "levels in 8 bits", "features", "metric", *ARMS, "8 bits - float"]
    page = [heading("Eight bits inside", f"{command}; --table", about, note), table(headings, lines)]
    return "\n\n".join([*page, f"Rows: `{out.name}`."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="folder of Parquet files with labels")
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--seeds", default="0,1,2", help="joined by commas")
    args = parse_arguments(parser, "levels.jsonl", threads=1, required="data")
    rows = read_or_run(args, jobs(args), SAME)
    print(show(rows, args.out))


if __name__ == "__main__":
    main()
