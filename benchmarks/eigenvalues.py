"""The paper's figure on real training: eigenvalues of the covariance over the first epoch, method by method.

    python benchmarks/eigenvalues.py --data path/to/cifar10 [--images 50000] [--threads 1] [--seeds 0,1] [--device cuda]
    python benchmarks/eigenvalues.py --table > docs/results/eigenvalues.md

Runs are those of the shared arm of benchmarks/methods.py: the data, backbone, views, batch, optimiser and schedule of
cifar10-cpu, and each method's own default head and options. At fixed steps the same two views each of 1,024 held-out
images go through backbone and projector, batch norms taking statistics of the batch as in training. That draws no
random number and changes no weight. One process per run; finished rows of --out are not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from common import Row, environment, heading, measured_rows, parse_arguments, read_or_run, summary, table
from frossl.core.length import Length
from frossl.core.progress import Progress
from frossl.data.loader import view_batches
from frossl.evals.extract import first
from frossl.evals.spectral import Moments, collision_entropy, condition_number, von_neumann_entropy
from frossl.runs.config import Config, Device
from frossl.runs.data import load_run_data
from frossl.train.loop import Learner, build, train
from methods import shared
from plot import Line, Panel, ramp, save_plot
from training import NEVER, Watch

NO_LOG = "frossl, no log"
METHODS = {"frossl": "#2f74d0", "barlow": "#cf4a3c", "simclr": "#2b9348", "vicreg": "#c98a00", "wmse": "#8a5fc4"}
METHODS |= {NO_LOG: "#9a9a9a"}
"""Methods and their colours; FroSSL without its logarithm as the theory has something to say about it."""
PLACES = ("backbone", "projector")
TOP, IMAGES, VIEWS_SEED = 14, 1024, 7
EARLY, EVERY = (0, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64), 20
"""Steps at which spectra are taken: these, and then every so many."""
NUMBERS = (10, TOP)
"""Eigenvalues, counted from 1, that stand for the small ones."""
LEAST = 1e-4
"""Smallest share that is drawn."""
SAME = ("method", "seed", "images")


@torch.no_grad()
def spectra(learner: Learner, views: list[Tensor], bf16: bool) -> dict[str, dict[str, Any]]:
    """The figures of backbone and projector on ``views``, chunks ``(V, N, C, S, S)``, all views pooled."""
    moments: dict[str, Moments] = {}
    for x in views:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            h_VNF = learner.encode(learner.backbone, x)
            z_VND = learner.method.embed(h_VNF)
        assert z_VND is not None
        for place, y in zip(PLACES, (h_VNF, z_VND), strict=True):
            part = Moments.of(y.flatten(0, 1).float().cpu())
            moments[place] = moments[place] + part if place in moments else part
    found = {}
    for place, moment in moments.items():
        values = moment.covariance_spectrum()
        found[place] = {
            "top": [float(f"{value:.5g}") for value in values[:TOP].tolist()],
            "total": values.sum().item(),
            "collision_entropy": collision_entropy(values),
            "von_neumann_entropy": von_neumann_entropy(values),
            "condition_number": condition_number(values),
        }
    return found


def track(config: Config, threads: int) -> Row:
    """Trains as ``config`` says; the figures of :func:`spectra` at every step at which they are taken."""
    torch.set_num_threads(threads)
    config = dataclasses.replace(config, monitor_every=NEVER, checkpoint_every=NEVER, telemetry_every=0)
    data = load_run_data(config)
    learner, plan = build(config, data)
    chunks = view_batches(first(data.test, IMAGES), plan.recipe, plan.spec.mean, plan.spec.std, seed=VIEWS_SEED)
    views = [part.to(plan.device) for groups in chunks for part in groups[0].split(plan.batch, dim=1)]
    learner.to(plan.device)
    bf16 = plan.precision == "bf16"
    found: dict[int, dict[str, dict[str, Any]]] = {}

    def look(progress: Progress, values: dict[str, float]) -> None:
        if progress.step in EARLY or progress.step % EVERY == 0 or progress.step == progress.total:
            found[progress.step] = spectra(learner, views, bf16)

    length = Length.parse(config.length)
    look(Progress(length, length.steps(batch=plan.batch, images=len(data.train))), {})
    with tempfile.TemporaryDirectory() as directory:
        if train(learner, plan, data, length, Path(directory), display=Watch(look)):
            raise KeyboardInterrupt
    tracks = {place: {name: [at[place][name] for at in found.values()] for name in found[0][place]} for place in PLACES}
    return {"steps": list(found), "precision": plan.precision, "views": plan.views, **tracks}


def jobs(args: argparse.Namespace) -> Iterator[tuple[Row, Any, tuple[Any, ...]]]:
    about = environment(args.threads)
    for seed in map(int, args.seeds.split(",")):
        for method in METHODS:
            config = shared(args.data, "frossl" if method == NO_LOG else method, args.images, seed)
            if method == NO_LOG:
                config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, log=False))
            config = dataclasses.replace(config, device=args.device)
            row = {"method": method, "seed": seed, "images": args.images}
            yield row | {"config": summary(config), "environment": about}, track, (config, args.threads)


def settled(steps: Sequence[int], values: Sequence[float], level: float) -> int | None:
    """The first step from which on ``values`` never are below ``level``; None if the last is."""
    below = [i for i, value in enumerate(values) if value < level]
    if not below:
        return steps[0]
    return None if below[-1] == len(values) - 1 else steps[below[-1] + 1]


def share_of(row: Row, place: str, number: int) -> list[float]:
    """The eigenvalue of this number, from 1, as a share of all, at every step."""
    at = row[place]
    return [top[number - 1] / total for top, total in zip(at["top"], at["total"], strict=True)]


def show(rows: list[Row], out: Path, plots: Path) -> str:
    """The page of results; writes the figures."""
    rows = measured_rows(rows, SAME)
    images = max(row["images"] for row in rows)
    rows = sorted((row for row in rows if row["images"] == images), key=lambda row: list(METHODS).index(row["method"]))
    seeds = sorted({row["seed"] for row in rows})
    draw_tracks(rows, plots / "eigenvalues.svg")
    draw_summaries(rows, plots / "eigenvalues-summary.svg")
    about = rows[-1]["environment"]
    note = (
        f"{images:,} images in {rows[0]['steps'][-1]} steps of {rows[0]['config']['batch']}, {rows[0]['views']} views, "
        f"{rows[0]['precision']}; seeds {' / '.join(map(str, seeds))}, in this order in every cell. Covariance of "
        f"{IMAGES * rows[0]['views']:,} views of {IMAGES:,} held-out images, the mean taken off. Shares are of the sum "
        "of all eigenvalues. S_2 is the collision entropy, which FroSSL raises in its projector, S_1 that of von "
        "Neumann, both in nats; rank is exp S_2, and its level half of the highest final one. A level is reached when "
        "the figure does not fall below it again. Widths of the projectors differ: "
        + ", ".join(
            f"`{row['method']}` `{row['config']['objective']['projector']}`" for row in rows if row["seed"] == seeds[0]
        )
        + "."
    )
    command = f"python benchmarks/eigenvalues.py --data path/to/cifar10 --images {images} --threads {about['threads']}"
    command += f" --seeds {','.join(map(str, seeds))}"
    parts = [heading("Eigenvalues over the first epoch", f"{command}; --table", about, note)]
    parts.append(f"![the {TOP} largest eigenvalues of each method over the steps](eigenvalues.svg)")
    parts.append("![entropies and condition of each method over the steps](eigenvalues-summary.svg)")
    for place in PLACES:
        parts += [f"## {place.capitalize()}", summary_of(rows, place)]
    parts.append(f"Read beside the [theory](../theory.md). Rows: `{out.name}`.")
    return "\n\n".join(parts)


def summary_of(rows: list[Row], place: str) -> str:
    """The table of one place: a row per method, seeds side by side."""

    def cells(method: str, of: Callable[[Row], float | None], form: str) -> str:
        found = [of(row) for row in rows if row["method"] == method]
        return " / ".join("never" if value is None else format(value, form) for value in found)

    def entropy(row: Row) -> list[float]:
        return row[place]["collision_entropy"]

    methods = list(dict.fromkeys(row["method"] for row in rows))

    finals = [statistics.fmean(math.exp(entropy(row)[-1]) for row in rows if row["method"] == m) for m in methods]
    level = max(finals) / 2
    shares: list[tuple[str, Callable[[Row], float | None], str]] = []
    for n in NUMBERS:
        shares.append((f"{n}th share at last, %", lambda row, n=n: 100 * share_of(row, place, n)[-1], ".2f"))
        shares.append(("1 % from step", lambda row, n=n: settled(row["steps"], share_of(row, place, n), 0.01), "d"))
    columns: list[tuple[str, Callable[[Row], float | None], str]] = [
        ("S_2 at first", lambda row: entropy(row)[0], ".2f"),
        ("lowest", lambda row: min(entropy(row)), ".2f"),
        ("at step", lambda row: row["steps"][entropy(row).index(min(entropy(row)))], "d"),
        ("at last", lambda row: entropy(row)[-1], ".2f"),
        ("S_1 at last", lambda row: row[place]["von_neumann_entropy"][-1], ".2f"),
        (f"rank {level:.1f} from step", lambda row: settled(row["steps"], entropy(row), math.log(level)), "d"),
        *shares,
        ("1st / 14th at last", lambda row: row[place]["top"][-1][0] / row[place]["top"][-1][-1], ".1f"),
        ("condition number at last", lambda row: row[place]["condition_number"][-1], ".1e"),
    ]
    lines = [[f"`{m}`", *(cells(m, of, form) for _, of, form in columns)] for m in methods]
    return table(["method", *(name for name, _, _ in columns)], lines)


def draw_tracks(rows: list[Row], path: Path) -> None:
    """Shares of the leading eigenvalues over the steps, of the first seed."""
    panels = []
    for place in PLACES:
        for row in rows:
            if row["seed"] == rows[0]["seed"]:
                lines = []
                for number in range(1, TOP + 1):
                    track = zip(row["steps"], share_of(row, place, number), strict=True)
                    points = [(step, share) for step, share in track if step > 0 and share > LEAST]
                    lines.append(
                        Line(str(number) if number in (1, TOP) else "", points, ramp((number - 1) / (TOP - 1)))
                    )
                title = f"{row['method']}: {place}"
                panels.append(Panel(title, "step", "share of the variance", lines, limits=(LEAST, 1.0)))
    key = [(ramp(0), "largest eigenvalue"), (ramp(1), f"{TOP}th")]
    save_plot(path, panels, key, columns=len(panels) // len(PLACES), size=(200, 240), right=40)


def draw_summaries(rows: list[Row], path: Path) -> None:
    """Entropies and condition over the steps, a line per method and seed."""

    def condition(row: Row, place: str) -> list[float]:
        return [top[0] / top[-1] for top in row[place]["top"]]

    figures: tuple[tuple[str, Callable[[Row, str], list[float]], str], ...] = (
        ("collision entropy S_2", lambda row, place: row[place]["collision_entropy"], "x"),
        ("von Neumann entropy S_1", lambda row, place: row[place]["von_neumann_entropy"], "x"),
        ("1st / 14th eigenvalue", condition, "xy"),
    )
    panels = []
    for place in PLACES:
        for name, of, log in figures:
            lines = []
            for row in rows:
                points = list(zip(row["steps"], of(row, place), strict=True))[1:]
                lines.append(
                    Line(row["method"] if row["seed"] == rows[0]["seed"] else "", points, METHODS[row["method"]])
                )
            panels.append(Panel(f"{place.capitalize()}: {name}", "step", name, lines, log))
    save_plot(path, panels, columns=3, size=(300, 260), right=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="CIFAR-10 as a Parquet folder, or the name cifar10")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--seeds", default="0,1", help="joined by commas")
    parser.add_argument(
        "--device", choices=get_args(Device), default="cpu", help="rows of another one go to another --out"
    )
    parser.add_argument("--plots", type=Path, default=Path("docs/results"), help="where the figures go")
    args = parse_arguments(parser, "eigenvalues.jsonl", threads=1, required="data")
    rows = read_or_run(args, jobs(args), SAME)
    print(show(rows, args.out, args.plots))


if __name__ == "__main__":
    main()
