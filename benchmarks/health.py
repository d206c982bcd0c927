"""Does the health monitor see wrong settings within 200 steps, and is it quiet about healthy runs?

    python benchmarks/health.py --data cifar10 [--device cuda]
    python benchmarks/health.py --table > docs/results/health.md

20 runs have settings that are wrong in different ways, of which some collapse; 20 are healthy runs of different
methods. Each is the first 200 steps of a run of 2,000. Even numbers served to set the thresholds of
``frossl.train.health``, odd ones to test them. Every row of --out holds what the monitor saw, so --table judges it anew
by the rules as they are.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import torch

from common import Row, environment, heading, parse_arguments, table
from frossl.core.length import Length
from frossl.core.types import UserError
from frossl.data.types import Dataset
from frossl.evals.extract import Extractor, first
from frossl.evals.knn import knn
from frossl.methods import find_method
from frossl.runs.config import Config, Device
from frossl.runs.data import load_run_data
from frossl.runs.log import read_rows
from frossl.train.health import PLATEAU_ROWS, Context, diagnose
from frossl.train.loop import NonFiniteError, build, train
from frossl.train.telemetry import context_of
from frossl.views.recipes import VIEWS, View
from training import NEVER, Watch, recipe_of_studies

STEPS = 200
SHARP = View(count=1, scale=(0.25, 1.0), brightness=0.6, contrast=0.6, saturation=0.4, hue=0.15)
WHITE = View(count=1, jitter=1.0, brightness=1e9, contrast=0.0, saturation=0.0, hue=0.0, grayscale=0.0)
SAME = View(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0)
VIEWS.add("study-same", (SAME,))
VIEWS.add("study-white", (SHARP, WHITE))
VIEWS.add("study-white-of-4", (dataclasses.replace(SHARP, count=3), WHITE))

Case = tuple[str, str, dict[str, Any], dict[str, Any]]
"""What it is, the method, changes of its objective and of the run."""
PAIRS = {"centre": False, "invariance_weight": 2.0, "view_scaling": "pairs"}
SGD = {"optimizer": "sgd", "weight_decay": 0.0}
COLLAPSES: tuple[Case, ...] = (
    ("learning rate x100", "frossl", {}, {"lr": 0.4}),
    ("learning rate x100", "vicreg", {}, {"lr": 0.4}),
    ("uncentred, SGD", "frossl", {"centre": False, "invariance_weight": 1.4}, {"lr": 0.5, **SGD}),
    ("uncentred, 'pairs', 8 views", "frossl", PAIRS, {"views": 8, "batch": 32}),
    ("invariance weight x100", "frossl", {"invariance_weight": 100.0}, {}),
    ("invariance weight x100", "vicreg", {"invariance_weight": 2500.0}, {}),
    ("no variance term", "vicreg", {"variance_weight": 0.0}, {}),
    ("no entropy term", "ivne", {"entropy_weight": 0.0}, {}),
    ("no regulariser", "lejepa", {"weight": 0.0}, {}),
    ("no expansion", "empssl", {"coding_rate_weight": 0.0}, {}),
    ("no decorrelation", "barlow", {"off_diagonal_weight": 0.0}, {}),
    ("invariance weight x1000", "corinfomax", {"invariance_weight": 250000.0}, {}),
    ("teacher temperature 1", "dino", {"teacher_temperature": 1.0, "first_teacher_temperature": 1.0}, {}),
    ("assignments of no sharpness", "swav", {"epsilon": 10.0}, {}),
    ("centre never moves", "dino", {"centre_momentum": 1.0, "freeze_prototypes": 0.0}, {"lr": 2e-2}),
    ("loss scale 1e-10, SGD", "barlow", {"scale": 1e-10}, {"lr": 0.1, **SGD}),
    ("augmentation off", "simclr", {}, {"view_recipe": "study-same"}),
    ("augmentation off", "frossl", {}, {"view_recipe": "study-same"}),
    ("one of 4 views white", "frossl", {}, {"view_recipe": "study-white-of-4", "views": None}),
    ("one of 2 views white", "simclr", {}, {"view_recipe": "study-white", "views": None}),
)  # fmt: skip
HEALTHY: tuple[Case, ...] = (
    ("2 views", "frossl", {}, {}),
    ("2 views", "vicreg", {}, {}),
    ("2 views", "barlow", {}, {}),
    ("2 views", "simclr", {}, {}),
    ("2 views", "byol", {}, {}),
    ("2 views", "simsiam", {}, {}),
    ("2 views", "dino", {}, {}),
    ("2 views", "swav", {}, {}),
    ("2 views", "mmcr", {}, {}),
    ("2 views", "wmse", {"projector": "256-bn-relu-32"}, {}),
    ("2 views", "corinfomax", {}, {}),
    ("2 views", "ivne", {}, {}),
    ("2 views", "lejepa", {}, {}),
    ("2 views", "dcl", {}, {}),
    ("4 views, batch 32", "frossl", {}, {"views": 4, "batch": 32}),
    ("2 views", "mocov2plus", {}, {}),
    ("batch 128, a quarter of the learning rate", "frossl", {}, {"batch": 128, "lr": 1e-3}),
    ("batch 128, temperature 0.5", "simclr", {"temperature": 0.5}, {"batch": 128}),
    ("LARS", "frossl", {}, {"optimizer": "lars", "lr": 0.3, "weight_decay": 1e-6}),
    ("SGD, the paper's strong views", "vicreg", {}, {"lr": 0.05, "view_recipe": "cifar-symmetric", **SGD}),
)
CASES = [("collapse", i, case) for i, case in enumerate(COLLAPSES)] + [("healthy", i, c) for i, c in enumerate(HEALTHY)]


class Enough(Exception):  # noqa: N818 (no error)
    """200 steps are done."""


UNTRAINED = -1
"""Number of the row on the encoder that all runs begin with."""
ONE = 1.5
"""Effective rank of features or embeddings below which a run that is set wrong has collapsed, not only gone astray."""


def config_of(method: str, objective: dict[str, Any], changes: dict[str, Any], data: str, device: str) -> Config:
    default = find_method(method).Config()
    heads = {"projector": default.projector.replace("1024", "256")}
    base = dataclasses.replace(
        recipe_of_studies(),
        data=data,
        method=method,
        backbone_options='{"channels": [16, 32, 64, 128], "layers": [1, 1, 1, 1]}',
        stem="imagenet",
        objective=dataclasses.replace(default, **(heads | objective)),
        views=2,
        batch=64,
        length="2000it",
        monitor_every=NEVER,
        checkpoint_every=NEVER,
        device=device,
        precision="32",
    )
    return dataclasses.replace(base, **changes)


def part_of(data: Dataset) -> Dataset:
    """What kNN is measured on."""
    return dataclasses.replace(data, train=first(data.train, 5000), test=first(data.test, 2000))


def untrained(data: Dataset, source: str, device: str) -> Row:
    """kNN of the encoder that runs begin with, its batch statistics taken from the bank."""
    learner, plan = build(config_of("frossl", {}, {}, source, device), data)
    extractor, part = Extractor(device=plan.device), part_of(data)
    encoder = learner.backbone.to(plan.device)
    extractor.settle_batch_norm(encoder, part.train, plan.spec)
    return {"case": UNTRAINED, "group": "untrained", "knn": knn(extractor.data(encoder, part, plan.spec))["knn"]}


def run_case(number: int, data: Dataset, source: str, device: str) -> Row:
    """The first 200 steps, what the monitor saw, and kNN of the encoder at the end."""
    group, _, (name, method, objective, changes) = CASES[number]
    config = config_of(method, objective, changes, source, device)
    start = time.perf_counter()
    learner, plan = build(config, data)
    extractor = Extractor(device=plan.device)
    part = part_of(data)

    def enough(progress: Any, _: Any) -> None:
        if progress.step >= STEPS:
            raise Enough

    stopped = None
    with tempfile.TemporaryDirectory() as directory:
        try:
            train(learner, plan, data, Length.parse(config.length), Path(directory), display=Watch(enough))
        except Enough:
            pass
        except (NonFiniteError, UserError) as error:
            stopped = str(error)
        rows = read_rows(Path(directory) / "metrics.jsonl")
    row = {
        "case": number,
        "group": group,
        "name": name,
        "method": method,
        "context": dataclasses.asdict(context_of(plan)),
        "stopped": stopped,
        "diagnostics": [row for row in rows if row["kind"] == "diagnostics"],
    }
    if stopped is None:
        row["knn"] = knn(extractor.data(learner.backbone, part, plan.spec))["knn"]
    return row | {"seconds": round(time.perf_counter() - start, 1)}


def findings(row: Row) -> dict[str, int]:
    """What was found within the steps of a run, and the first step at which it was."""
    found: dict[str, int] = {}
    for end, diagnostics in enumerate(row["diagnostics"], 1):
        for finding in diagnose(row["diagnostics"][:end], Context(**row["context"])):
            found.setdefault(finding.state, diagnostics["step"])
    return found


def kind(row: Row) -> str:
    """healthy, collapsed or mis-set: what is set wrong but has not collapsed by the last step."""
    if row["group"] == "healthy":
        return "healthy"
    last = row["diagnostics"][-1]
    return (
        "collapsed" if min(last[f"{place}_effective_rank"] for place in ("backbone", "projector")) < ONE else "mis-set"
    )


def show(rows: list[Row], out: Path) -> str:
    """The page of results."""
    rows = sorted({row["case"]: row for row in rows}.values(), key=lambda row: row["case"])
    start = next((f"{row['knn']:.3f}" for row in rows if row["case"] == UNTRAINED), "not measured")
    judged = [(row, findings(row)) for row in rows if row["case"] != UNTRAINED]
    first_ranks = sorted(row["diagnostics"][0]["backbone_effective_rank"] for row, _ in judged)

    def count(which: str, parity: int) -> str:
        half = [found for row, found in judged if kind(row) == which and row["case"] % 2 == parity]
        return f"{sum(map(bool, half))} of {len(half)}"

    def line(row: Row, found: dict[str, int]) -> list[str]:
        half = "set" if row["case"] % 2 == 0 else "test"
        ranks = [diagnostics["backbone_effective_rank"] for diagnostics in row["diagnostics"]]
        figures = [f"{row['knn']:.3f}" if "knn" in row else "–", f"{ranks[-1]:.1f}", f"{min(ranks) / ranks[0]:.2f}"]
        figures.append(f"{row['diagnostics'][-1]['projector_effective_rank']:.1f}")
        said = "; ".join(f"{state} ({step})" for state, step in found.items()) or "nothing"
        return [f"`{row['method']}`", row["name"], half, *figures, said]

    headings = ["method", "what", "half", "kNN", "rank", "lowest share", "rank of embeddings", "flagged as (at step)"]
    kinds = ("collapsed", "mis-set", "healthy")
    halves = [
        [name, *(count(which, parity) for which in kinds)]
        for parity, name in ((0, "thresholds set on it (even numbers)"), (1, "tested on it (odd numbers)"))
    ]
    about = rows[-1]["environment"]
    note = (
        "The first 200 steps of runs of 2,000 on CIFAR-10: a ResNet of one block a stage and a quarter of the width, "
        "heads 256 wide, batch 64, two views, AdamW, learning rate 4e-3 per 256 images, seed 0 where nothing else is "
        f"said. The untrained encoder has a kNN of {start}, and an effective rank of {first_ranks[0]:.1f} to "
        f"{first_ranks[-1]:.1f} on the views of the runs. kNN is of 5,000 training and 2,000 held-out images at step "
        "200; rank is the effective rank of the backbone on one batch of views at that step, lowest share the lowest "
        f"until then over that of the untrained encoder. Collapsed is what has an effective rank below {ONE} of "
        "features or embeddings at step 200; mis-set is what was set wrong and has not. (Embeddings of two healthy "
        "methods with prototypes are there at that step as well; the monitor does not judge by this.) Some healthy "
        "runs come near a threshold: it is 0.15 for the lowest share. Longer runs were not studied. "
        "Rules and thresholds come from the even numbers; that for a view that says nothing was set, from case 18, "
        "when most odd ones had been run, though not case 19, which it concerns. The monitor sees diagnostics of one "
        f"batch at step 1 and every 20 steps; a plateau at ln K has to last for {PLATEAU_ROWS} of them and is told at "
        f"step {20 * (PLATEAU_ROWS - 1)} at the earliest. Not every setting that is wrong costs accuracy so early."
    )
    parts = [
        heading(
            "The health monitor on 20 runs set wrong and 20 healthy runs",
            "python benchmarks/health.py; --table",
            about,
            note,
        ),
        table(["half", *(f"{which}: flagged" for which in kinds)], halves),
        *(
            text
            for title, which in zip(("Collapsed", "Mis-set, not collapsed", "Healthy runs"), kinds, strict=True)
            for text in (f"## {title}", table(headings, [line(*j) for j in judged if kind(j[0]) == which]))
        ),
        f"Rows: `{out.name}`.",
    ]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--only", default="", help="numbers of cases joined by commas, -1 the untrained encoder; all")
    parser.add_argument(
        "--device", choices=get_args(Device), default="cpu", help="rows of another one go to another --out"
    )
    args = parse_arguments(parser, "health.jsonl", threads=1)
    rows = read_rows(args.out) if args.out.exists() else []
    if not args.table:
        torch.set_num_threads(args.threads)
        about = environment(args.threads)
        data = load_run_data(config_of("frossl", {}, {}, args.data, args.device))
        done = {row["case"] for row in rows}
        for number in map(int, args.only.split(",")) if args.only else range(UNTRAINED, len(CASES)):
            if number in done:
                continue
            print(number, *(CASES[number][2][:2] if number >= 0 else ["untrained"]), file=sys.stderr, flush=True)
            how = data, args.data, args.device
            rows.append((untrained(*how) if number == UNTRAINED else run_case(number, *how)) | {"environment": about})
            args.out.parent.mkdir(parents=True, exist_ok=True)
            with args.out.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print(show(rows, args.out))


if __name__ == "__main__":
    main()
