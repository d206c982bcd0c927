"""Every method for the same number of images of one data set: what its encoder is worth and what its steps cost.

    python benchmarks/methods.py --data path/to/cifar10 [--images 100000] [--threads 2] [--seeds 0] [--only byol,mmcr]
    python benchmarks/methods.py --table > docs/results/methods.md

Two arms. "shared": the optimiser of the recipe cifar10-cpu and the method's own default options. "own": optimiser,
learning rate, weight decay and options of paper-cifar10-METHOD, where there is one; the weight of FroSSL's invariance
keeps w D / N, which decides what it does, at this batch and width. Both have the backbone, views,
batch and schedule of cifar10-cpu; methods made for many crops get 8 of a quarter of the image, 16 pixels
wide, as they are in it. One process per run; finished rows of --out are not run again, so it can be stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import (
    DATA,
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
from frossl.core.length import Length
from frossl.methods import METHODS, find_method
from frossl.recipes import RECIPES
from frossl.runs.config import Config
from training import cost_on_noise, pretrain_and_evaluate, recipe_of_studies

MANY_CROPS = ("empssl", "emp_frossl")
CROPS, PATCH = 8, 16
WIDEST, LONGEST_QUEUE = 1024, 4096
"""Published heads and queues are cut to this for two cores."""
IN_EPOCHS = ("freeze_prototypes", "queue_from", "teacher_warmup")
"""Options in epochs, which keep their share of the run."""
DEFAULT_EPOCHS = 100
"""What defaults in epochs are meant for."""
STEPS = 8
"""Steps that the cost is the median of."""
SAME = ("method", "arm", "seed", "images")


def shared(data: str, method: str, images: int, seed: int) -> Config:
    """The recipe of the data for two cores, with another method."""
    config = dataclasses.replace(
        recipe_of_studies(),
        data=data,
        method=method,
        objective=find_method(method).Config(),
        length=f"{images}img",
        seed=seed,
    )
    if method in MANY_CROPS:
        config = dataclasses.replace(config, view_recipe="cifar-emp", views=CROPS, size=PATCH)
    return with_epochs(config, DEFAULT_EPOCHS)


def own(data: str, method: str, images: int, seed: int) -> Config | None:
    """As :func:`shared`, with the published optimiser and objective; None where none is published."""
    if f"paper-cifar10-{method}" not in RECIPES:
        return None
    published = RECIPES[f"paper-cifar10-{method}"]()
    names = ("optimizer", "lr", "weight_decay", "clip")
    config = shared(data, method, images, seed)
    config = dataclasses.replace(
        config,
        objective=with_balance(for_two_cores(published.objective), published, config.batch),
        **{name: getattr(published, name) for name in names},
    )
    return with_epochs(config, Length.parse(published.length).amount)


def with_balance(objective: Any, published: Config, batch: int | None) -> Any:
    """``objective`` with the weight that has the published w D / N at another batch and width, if it is FroSSL's."""
    if not hasattr(objective, "view_scaling"):
        return objective
    assert published.batch is not None
    assert batch is not None
    widths = [int(re.findall(r"\d+", o.projector)[-1]) for o in (published.objective, objective)]
    balance = published.objective.invariance_weight * widths[0] / published.batch
    return dataclasses.replace(objective, invariance_weight=balance * batch / widths[1])


def for_two_cores(objective: Any) -> Any:
    """``objective`` with its heads no wider than :data:`WIDEST` and its queue no longer than :data:`LONGEST_QUEUE`."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(objective):
        value = getattr(objective, field.name)
        if field.name == "projector":
            changes["projector"] = re.sub(r"\d+", lambda width: str(min(int(width[0]), WIDEST)), value)
        elif field.name in ("predictor_width", "queue"):
            changes[field.name] = min(value, WIDEST if field.name == "predictor_width" else LONGEST_QUEUE)
    return dataclasses.replace(objective, **changes)


def with_epochs(config: Config, epochs: float) -> Config:
    """Options in epochs of a run of ``epochs`` as the same share of this one, whose epochs have 50,000 images."""
    share = Length.parse(config.length).amount / 50_000 / epochs
    names = [field.name for field in dataclasses.fields(config.objective) if field.name in IN_EPOCHS]
    changes = {name: float(f"{getattr(config.objective, name) * share:.3g}") for name in names}
    return dataclasses.replace(config, objective=dataclasses.replace(config.objective, **changes))


def jobs(args: argparse.Namespace) -> Iterator[tuple[Row, Any, tuple[Any, ...]]]:
    """What is to be done, seed by seed: quality and then cost, which does not depend on the data, once."""
    names = args.only.split(",") if args.only else list(METHODS)
    arms = args.arms.split(",")
    about = environment(args.threads)
    for seed in map(int, args.seeds.split(",")):
        for arm, make in (("shared", shared), ("own", own)):
            for method in names if arm in arms else ():
                config = make(args.data, method, args.images, seed)
                if config is None:
                    continue
                row = {"method": method, "arm": arm, "seed": seed, "images": args.images}
                yield (
                    row | {"config": summary(config), "environment": about},
                    pretrain_and_evaluate,
                    (config, args.threads),
                )
    for method in names if "cost" in arms else ():
        if method != "random":
            config = shared(args.data, method, args.images, 0)
            row = {"method": method, "arm": "cost", "seed": 0, "images": args.images, "environment": about}
            yield row, cost_on_noise, (config, 32, STEPS, args.threads)


def raw_pixels() -> tuple[str, str]:
    """kNN and linear probe of them by the same metrics, from the rows of the comparison on these data."""
    arms = json.loads((DATA.parent / "comparisons/first-minutes/comparison.json").read_text())["results"][0]["arms"]
    found = next(arm["pixels"] for arm in arms if arm["pixels"])
    return f"{found['knn'][0]:.3f}", f"{found['linear'][0]:.3f}"


def other_weights(rows: list[Row]) -> str:
    """A sentence on rows of the arm "own" whose invariance weight is not the one that the script has now."""
    told = []
    for row in rows:
        config = own("", row["method"], row["images"], row["seed"]) if row["arm"] == "own" else None
        now = getattr(config and config.objective, "invariance_weight", None)
        was = row["config"]["objective"].get("invariance_weight") if config else None
        if hasattr(config and config.objective, "view_scaling") and was != now:
            told.append(f"`{row['method']}` with w = {was:g} where w D / N as published is {now:g}")
    return f" Not run anew since `own` keeps w D / N: {'; '.join(told)}." if told else ""


def show(rows: list[Row], out: Path) -> str:
    """The page of results."""
    rows = latest(rows, SAME)
    images = max(row["images"] for row in rows)
    rows = [row for row in rows if row["images"] == images]
    held_out = max(row.get("held_out", 0) for row in rows)
    noise = 100 * 2 * math.sqrt(0.25 / held_out) if held_out else 0.0

    def of(method: str, arm: str) -> list[Row]:
        return [row for row in rows if row["method"] == method and row["arm"] == arm]

    def values(method: str, arm: str) -> list[str]:
        found = of(method, arm)
        if any("error" in row for row in found):
            return [found[-1]["error"].partition(":")[0], "", ""]
        names = (("knn", 3), ("linear", 3), ("effective_rank", 1))
        return [spread([row.get(name) for row in found], digits) for name, digits in names]

    def best(method: str) -> float:
        return max((row.get("linear", 0.0) for row in rows if row["method"] == method), default=0.0)

    lines = [["raw pixels", "–", *raw_pixels(), *["–"] * 8]]
    for method in sorted({row["method"] for row in rows}, key=best, reverse=True):
        cost = next((row for row in of(method, "cost") if "error" not in row), None)
        costs = ["–"] * 4
        if cost:
            share = 100 * cost["alone_ms"] / cost["step_ms"]
            costs = [f"{cost['step_ms']:.0f}", f"{cost['alone_ms']:.1f}", f"{share:.0f} %", f"{cost['peak_mib']:.0f}"]
        views = max((row.get("views", 2) for row in of(method, "shared")), default=2)
        lines.append([f"`{method}`", views, *values(method, "shared"), *values(method, "own"), *costs])
    headings = ["method", "V", "kNN", "linear", "rank", "own: kNN", "linear", "rank"]
    headings += ["ms / step", "heads + loss ms", "share", "memory MiB"]

    about = rows[-1]["environment"]
    seeds = sorted({row["seed"] for row in rows})
    batch = next(row["config"]["batch"] for row in rows if "config" in row)
    note = (
        f"{images:,} images, batch {batch}, {seeds_in_words(seeds)}. kNN and linear: top-1 accuracy on {held_out:,} "
        f"held-out images, two standard errors of which are up to {noise:.1f} points; rank: effective rank of their "
        "features. "
        "The first three columns are with the AdamW, rate and views of `cifar10-cpu`, which were chosen for FroSSL "
        "with two views and on these held-out images (two-cores.md), and with default options; `own` is with the "
        "published "
        f"optimiser, rate, weight decay and options (heads cut to {WIDEST}, queues to {LONGEST_QUEUE:,}); published "
        "values are for 1000 epochs, and momenta of averaged networks are kept as they are, so that `own` says what "
        "they do in a short run, not what the method can do; – where no configuration was published. `random` is "
        f"the untrained encoder, `supervised` and `supcon` have the labels; methods with {CROPS} views see as many "
        f"images, each in patches of {PATCH} pixels. Cost: medians of {STEPS} whole steps on noise, shared arm; memory "
        "is the peak above that of the process before it has a model."
    )
    note += " Raw pixels are those of the rows of the comparison on the same images." + other_weights(rows)
    settings = [
        [f"`{row['method']}`", c["optimizer"], f"{c['lr']:g}", f"{c['weight_decay']:g}", f"`{c['objective']}`"]
        for row in sorted(rows, key=lambda row: row["method"])
        if row["arm"] == "own" and row["seed"] == seeds[0]
        for c in [row["config"]]
    ]
    command = f"python benchmarks/methods.py --data path/to/cifar10 --images {images} --threads {about['threads']}"
    command += f" --seeds {','.join(map(str, seeds))}"
    minutes = sum(row.get("training_minutes", 0.0) for row in rows)
    median = statistics.median([row["step_ms"] for row in rows if row["arm"] != "cost" and row.get("step_ms")] or [0])
    parts = [
        heading("Every method on two cores", f"{command}; --table", about, note),
        table(headings, lines),
        f"Training took {minutes:.0f} minutes in all, the median step in it {median:.0f} ms. Rows: `{out.name}`.",
        "## The published settings, as they were run",
        table(["method", "optimiser", "rate / 256", "weight decay", "options"], settings),
    ]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="CIFAR-10 as a Parquet folder, or the name cifar10")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--seeds", default="0", help="joined by commas")
    parser.add_argument("--only", default="", help="methods joined by commas; all if not given")
    parser.add_argument("--arms", default="shared,own,cost", help="joined by commas")
    args = parse_arguments(parser, "methods.jsonl", threads=2, required="data")
    rows = read_or_run(args, jobs(args), SAME)
    print(show(rows, args.out))


if __name__ == "__main__":
    main()
