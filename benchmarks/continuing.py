"""Does it help to go on from published weights without labels? Equal time from a start, against that start.

    python benchmarks/continuing.py --cifar10 PATH --tiny-imagenet PATH --starts frossl supervised lite0
    python benchmarks/continuing.py --table > docs/results/continuing.md

Starts: an encoder that FroSSL trained on CIFAR-10, one trained with the labels of 30 classes of Tiny ImageNet, and the
published weights ``lite0``. Each goes on with other data by several objectives, and beside them stand the start as it
was and random weights trained for the same time. Times are by the clock, one thread a run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import Row, environment, heading, measured_rows, parse_arguments, read_or_run, seeds_in_words, spread, table
from frossl.runs.config import Config
from training import measure_pixels, pretrain_and_evaluate

NET: dict[str, Any] = {
    "backbone_options": '{"channels": [24, 48, 96, 192], "layers": [1, 1, 1, 1]}',
    "stem": "imagenet",
}
"""A narrow ResNet with the stem that timm has."""
COMMON: dict[str, Any] = {"size": 32, "views": 2, "batch": 64, "view_recipe": "cifar-cpu", "telemetry_every": 0}
TARGETS = {"frossl": ("tiny-imagenet",), "supervised": ("cifar10",), "lite0": ("cifar10", "fashion-mnist")}
"""By start, the data that training goes on with."""
METHODS = ("frossl", "simclr", "vicreg", "byol")
PIXELS = "raw pixels"
ARMS = (PIXELS, "start", "scratch", *METHODS)
EVALUATED = 6000, 3000
DRAWS = 3
SAME = ("start", "data", "arm", "seed", "minutes", "settings", "validation")
FIGURES = {"knn": "kNN", "linear": "linear", "linear_10": "10 labels"}


VALIDATION = 0.2
"""Share of the training images on which settings are chosen, and on which nothing is trained then."""


def evaluate(config: Config, threads: int, validation: bool = False) -> Row:
    how: dict[str, Any] = {"metrics": ("knn", "linear", "rank"), "draws": DRAWS, "most": EVALUATED}
    return pretrain_and_evaluate(config, threads, validation=VALIDATION if validation else None, **how)


def prepare(start: str, places: dict[str, str], folder: Path, threads: int) -> str:
    """Where the weights of ``start`` are, trained if they are not there yet."""
    if start == "lite0":
        return start
    path = folder / f"{start}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        common = {**COMMON, **NET, "lr": 4e-3}
        if start == "frossl":
            config = Config(data=places["cifar10"], length="8min", **common)
        else:
            config = Config(data=places["tiny-imagenet"], method="supervised", length="8min", **common)
        pretrain_and_evaluate(config, threads, most=EVALUATED, save=path)
    return str(path)


def configure(
    start: str, weights: str, place: str, arm: str, seed: int, minutes: float, more: dict[str, Any]
) -> Config:
    net = {"backbone": "tf_efficientnet_lite0"} if start == "lite0" else NET
    own = {**COMMON, "data": place, "seed": seed, "length": f"{minutes:g}min"}
    if arm == "scratch":
        return Config(**own, **net, lr=4e-3)
    if arm == "start":
        return Config(**own | {"length": "1it"}, init=weights, method="random")
    return Config(**own, init=weights, method=arm, **more)


def jobs(args: argparse.Namespace) -> Iterator[tuple[Row, Any, tuple[Any, ...]]]:
    places = {"cifar10": args.cifar10, "tiny-imagenet": args.tiny_imagenet, "fashion-mnist": "fashion-mnist"}
    trained = set(args.arms) - {PIXELS}
    weights = {s: prepare(s, places, args.weights, args.threads) if trained else "" for s in args.starts}
    more = {
        name: value for name in ("lr", "freeze", "anchor", "batch_norm") if (value := getattr(args, name)) is not None
    }
    settings = ", ".join(f"{name} {value}" for name, value in more.items())
    for seed in args.seeds:
        for start in args.starts:
            for data in args.data or TARGETS[start]:
                for arm in args.arms:
                    if arm == PIXELS:
                        about = {"start": start, "data": data, "arm": arm, "seed": 0, "minutes": args.minutes}
                        about |= {"validation": False, "settings": "", "environment": environment(args.threads)}
                        config = Config(data=places[data], size=COMMON["size"])
                        yield about, measure_pixels, (config, args.threads, EVALUATED, DRAWS)
                        continue
                    config = configure(start, weights[start], places[data], arm, seed, args.minutes, more)
                    own = "" if arm in ("start", "scratch") else settings
                    about = {"start": start, "data": data, "arm": arm, "seed": seed, "minutes": args.minutes}
                    about |= {"validation": args.validation}
                    row = about | {"settings": own, "environment": environment(args.threads)}
                    yield row, evaluate, (config, args.threads, args.validation)


def show(rows: list[Row], out: Path) -> str:
    """The page of results."""
    rows = measured_rows(rows, SAME)
    parts = []
    for start, data, chosen in dict.fromkeys((row["start"], row["data"], row["validation"]) for row in rows):
        here = [row for row in rows if (row["start"], row["data"], row["validation"]) == (start, data, chosen)]
        lines = []
        for arm, settings in dict.fromkeys((row["arm"], row["settings"]) for row in here):
            of = [row for row in here if (row["arm"], row["settings"]) == (arm, settings)]
            before = {row["seed"]: row for row in here if row["arm"] == "start"}
            cells = []
            for name in FIGURES:
                having = [row for row in of if name in row]  # features that are not finite have no probe
                part = "" if len(having) == len(of) else f" (of {len(having)} seeds)"
                cells.append(spread([row[name] for row in having], 3) + part if having else "not finite")
                gains = [100 * (row[name] - before[row["seed"]][name]) for row in having if row["seed"] in before]
                cells.append("" if arm == "start" or not gains else spread(gains, 1))
            steps = spread([row["steps"] for row in of], 0) if arm not in (PIXELS, "start") else ""
            lines.append([f"{arm}{', ' * bool(settings)}{settings}", *cells, steps, len(of)])
        headings = ["arm", *(x for name in FIGURES.values() for x in (name, "points above start")), "steps", "seeds"]
        on = f", {here[0]['minutes']:g} minutes" + ", scored on training images kept aside" * chosen
        parts.append(f"## {start} to {data}{on}\n\n{table(headings, lines)}")
    about = rows[-1]["environment"]
    seeds = seeds_in_words(sorted({row["seed"] for row in rows}))
    note = (
        f"Equal time of training for all arms of a table, {seeds}; "
        f"{COMMON['views']} views of {COMMON['size']} pixels, batch {COMMON['batch']}; scored on {EVALUATED[1]:,} "
        f"held-out images with {EVALUATED[0]:,} training images as bank and for probes. Points are seed by seed. "
        "Where the machine did other work too, arms got unequal numbers of steps."
    )
    command = "python benchmarks/continuing.py --cifar10 PATH --tiny-imagenet PATH --starts START --data DATA "
    command += f"--minutes MINUTES --threads {about['threads']}"
    page = [heading("Going on from published weights", f"{command}; --table", about, note), *parts]
    return "\n\n".join([*page, f"Rows: `{out.name}`."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cifar10", default="cifar10", help="name or place of the data")
    parser.add_argument("--tiny-imagenet", default="tiny-imagenet", help="name or place of the data")
    parser.add_argument("--starts", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--data", nargs="+", help="data to go on with, if not all")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--freeze")
    parser.add_argument("--anchor", type=float)
    parser.add_argument("--batch-norm")
    parser.add_argument("--validation", action="store_true", help="score on part of the training images")
    parser.add_argument("--weights", type=Path, default=Path("runs/continuing"), help="where starts are kept")
    args = parse_arguments(parser, "continuing.jsonl", threads=1)
    rows = read_or_run(args, jobs(args), SAME)
    print(show(rows, args.out))


if __name__ == "__main__":
    main()
