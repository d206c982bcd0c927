"""Why would FroSSL learn fast? Entropy and agreement of views over training, against the accuracy that is reached.

    python benchmarks/cause.py --data path/to/cifar10 [--steps 400] [--threads 1] [--seeds 0 1 2]
    python benchmarks/cause.py --table > docs/results/cause.md

Runs are those of the shared arm of benchmarks/methods.py, FroSSL with three weights and without its logarithm too. A
tenth of the training images is kept aside and measured; the test images are not read. Two views each of 2,048 of those
go through backbone and projector at fixed steps, batch norms taking statistics of the batch as in training, in a copy
of the networks. One process per run; finished rows of --out are not run again.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import random
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from common import Row, environment, heading, measured_rows, parse_arguments, read_or_run, spread, summary, table
from frossl.core.length import Length
from frossl.core.progress import Progress
from frossl.data.loader import view_batches
from frossl.evals import measure
from frossl.evals.extract import first, sample
from frossl.evals.spectral import collision_entropy
from frossl.runs.config import Config
from frossl.train.loop import Learner, build, train
from frossl.views.recipes import pair
from methods import shared
from plot import BLUE, GREY, RED, Line, Panel, save_plot
from training import NEVER, Watch, images_of, recipe_of_studies

ARMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "frossl": ("frossl", {}, BLUE),
    "frossl, w / 2": ("frossl", {"invariance_weight": 0.25}, "#7fb2ee"),
    "frossl, 2 w": ("frossl", {"invariance_weight": 1.0}, "#7a5fc4"),
    "frossl, no log": ("frossl", {"log": False}, GREY),
    "vicreg": ("vicreg", {}, "#c98a00"),
    "barlow": ("barlow", {}, RED),
}
"""Method, options beside its defaults, and colour. The default weight 4 N / D is 0.5 here."""
NO_LOG = "frossl, no log"
PLACES, METRICS = ("projector", "backbone"), ("knn", "linear")
IMAGES, BANK, HELD_OUT, VIEWS_SEED, VALIDATION = 2048, 10_000, 5_000, 7, 0.1
LOOKS, SCORED = 16, 2
"""How often in a run spectra are taken, and accuracies."""
DRAWS = 2000
SAME = ("arm", "steps", "seed")


def figures(y_VND: Tensor) -> tuple[float, float]:
    """Collision entropy of the correlation matrix, and the mean over dimensions of the two views' correlation."""
    y_VND = y_VND.double() - y_VND.double().mean(1, keepdim=True)
    y_VND = y_VND / y_VND.norm(dim=1, keepdim=True).clamp_min(1e-12)
    values = torch.linalg.eigvalsh((y_VND.mT @ y_VND).mean(0)).flip(0)
    return collision_entropy(values), (y_VND[0] * y_VND[1]).sum(0).mean().item()


@torch.no_grad()
def seen(learner: Learner, views: Sequence[Tensor]) -> dict[str, tuple[float, float]]:
    """The :func:`figures` of projector and backbone; ``learner`` keeps what it has."""
    own = copy.deepcopy(learner).train()
    features = [own.encode(own.backbone, x) for x in views]
    projections = [own.method.embed(h) for h in features]
    return {
        "projector": figures(torch.cat([z for z in projections if z is not None], 1).float()),
        "backbone": figures(torch.cat(features, 1).float()),
    }


def tracked(config: Config, threads: int) -> Row:
    """Trains as ``config`` says; entropy, agreement and accuracy on the way."""
    torch.set_num_threads(threads)
    data = images_of(config, VALIDATION)
    learner, plan = build(config, data)
    chunks = view_batches(first(data.test, IMAGES), pair(plan.recipe), plan.spec.mean, plan.spec.std, seed=VIEWS_SEED)
    views = [groups[0] for groups in chunks]
    part, extractor, length = sample(data, BANK, HELD_OUT), plan.extractor(), Length.parse(config.length)
    row: dict[str, Any] = {"at": [], **{p: {"entropy": [], "agreement": []} for p in PLACES}}
    row |= {"scored_at": [], **{name: [] for name in METRICS}}

    def look(progress: Progress, values: dict[str, float]) -> None:
        step, total = progress.step, progress.total
        if step % (total // LOOKS) == 0:
            row["at"].append(step)
            for place, (entropy, agreement) in seen(learner, views).items():
                row[place]["entropy"].append(round(entropy, 4))
                row[place]["agreement"].append(round(agreement, 4))
        if step and step % (total // SCORED) == 0:
            features = extractor.data(copy.deepcopy(learner.backbone).eval(), part, plan.spec)
            found = measure(features, list(METRICS))
            row["scored_at"].append(step)
            for name in METRICS:
                row[name].append(found[name])

    look(Progress(length, length.steps(batch=plan.batch, images=len(data.train))), {})
    with tempfile.TemporaryDirectory() as directory:
        if train(learner, plan, data, length, Path(directory), display=Watch(look)):
            raise KeyboardInterrupt
    return row


def config_of(data: str, arm: str, steps: int, seed: int) -> Config:
    """The configuration of a run."""
    method, options, _ = ARMS[arm]
    config = shared(data, method, steps * recipe_of_studies().batch, seed)
    never = {"monitor_every": NEVER, "checkpoint_every": NEVER, "telemetry_every": 0}
    objective = dataclasses.replace(config.objective, **options)
    return dataclasses.replace(config, objective=objective, **never)


def jobs(args: argparse.Namespace) -> Iterator[tuple[Row, Any, tuple[Any, ...]]]:
    about = environment(args.threads, "scipy")
    for seed, arm in product(args.seeds, ARMS):
        config = config_of(args.data, arm, args.steps, seed)
        row = {"arm": arm, "steps": args.steps, "seed": seed, "config": summary(config), "environment": about}
        yield row, tracked, (config, args.threads)


def mean_over_steps(row: Row, place: str, name: str) -> float:
    """The mean of a figure over the steps of a run: large where it rises early."""
    points = list(zip(row["at"], row[place][name], strict=True))
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points)) / (points[-1][0] - points[0][0])


PREDICTORS = {
    f"{name} of the {place}, {when}": (place, name, when)
    for place in PLACES
    for name in ("entropy", "agreement")
    for when in ("mean over steps", "at last")
}


def value_of(row: Row, predictor: str) -> float:
    place, name, when = PREDICTORS[predictor]
    return row[place][name][-1] if when == "at last" else mean_over_steps(row, place, name)


def ranked(values: Sequence[float]) -> Tensor:
    """Ranks, their mean taken off."""
    ranks = torch.from_numpy(stats.rankdata(values)).double()
    return ranks - ranks.mean()


def correlation(x: Sequence[float], y: Sequence[float], given: Sequence[float] | None = None) -> float:
    """Spearman's, 0 where one is constant; with ``given``, of what its ranks leave of those of both."""
    a, b = ranked(x), ranked(y)
    if given is not None:
        c = ranked(given)
        a, b = (t - (t @ c) / (c @ c).clamp_min(1e-12) * c for t in (a, b))
    scale = a.norm() * b.norm()
    return (a @ b / scale).item() if scale > 1e-9 else 0.0


def with_bootstrap(*columns: Sequence[float]) -> str:
    """The :func:`correlation` of columns and a 95 % interval over draws of runs with replacement."""
    draw, count, found = random.Random(0), len(columns[0]), []
    for _ in range(DRAWS):
        chosen = [draw.randrange(count) for _ in range(count)]
        found.append(correlation(*([column[i] for i in chosen] for column in columns)))
    found.sort()
    low, high = found[round(0.025 * DRAWS)], found[round(0.975 * DRAWS) - 1]
    return f"{correlation(*columns):+.2f} ({low:+.2f} to {high:+.2f})"


def within_arms(rows: list[Row], values: Sequence[float]) -> list[float]:
    """What is left of values, one for each row, without the mean of the row's arm."""
    means = {
        arm: statistics.fmean(v for row, v in zip(rows, values, strict=True) if row["arm"] == arm)
        for arm in {row["arm"] for row in rows}
    }
    return [v - means[row["arm"]] for row, v in zip(rows, values, strict=True)]


def correlations(rows: list[Row]) -> str:
    """A line for each predictor: rank correlations with the final linear probe."""
    lines = []
    for name in PREDICTORS:
        cells = []
        for some in (rows, [row for row in rows if row["arm"] != NO_LOG]):
            cells.append(with_bootstrap([value_of(row, name) for row in some], [row["linear"][-1] for row in some]))
        own = [within_arms(rows, v) for v in ([value_of(r, name) for r in rows], [r["linear"][-1] for r in rows])]
        lines.append([name, *cells, with_bootstrap(*own)])
    return table(["predictor", "all runs", "without those that have no log", "within arms"], lines)


def left_over(rows: list[Row]) -> str:
    """A line for each place: what agreement says of accuracy once entropy is known, and the other way round."""
    lines = []
    for place in PLACES:
        for name, given in (("agreement", "entropy"), ("entropy", "agreement")):
            cells = []
            for some in (rows, [row for row in rows if row["arm"] != NO_LOG]):
                x, known = ([mean_over_steps(row, place, which) for row in some] for which in (name, given))
                cells.append(with_bootstrap(x, [row["linear"][-1] for row in some], known))
            lines.append([f"{name} of the {place}, given its {given}", *cells])
    return table(["means over steps", "all runs", "without those that have no log"], lines)


def arms_table(rows: list[Row]) -> str:
    """A line for each arm, the best linear probe first."""
    lines = []
    for arm in ARMS:
        own = [row for row in rows if row["arm"] == arm]
        cells = [spread([row["linear"][-1] for row in own], 3), spread([row["knn"][-1] for row in own], 3)]
        for name in PREDICTORS:
            cells.append(spread([value_of(row, name) for row in own], 2))
        lines.append((-statistics.fmean(row["linear"][-1] for row in own), [arm, len(own), *cells]))
    headings = ["arm", "seeds", "linear", "kNN", *PREDICTORS]
    return table(headings, [line for _, line in sorted(lines, key=lambda line: line[0])])


def draw(rows: list[Row], path: Path) -> None:
    """Entropy and accuracy over the steps, and accuracy against entropy and agreement."""

    def over(name: str, y: str, at: str, of: Any) -> Panel:
        lines = []
        for row in rows:
            label = row["arm"] if row["seed"] == rows[0]["seed"] else ""
            lines.append(Line(label, list(zip(row[at], of(row), strict=True)), ARMS[row["arm"]][2]))
        return Panel(name, "step", y, lines, "")

    def against(x: str, predictor: str) -> Panel:
        lines = []
        for arm, (_, _, colour) in ARMS.items():
            points = sorted((value_of(row, predictor), row["linear"][-1]) for row in rows if row["arm"] == arm)
            lines.append(Line(arm, points, colour, dots=True))
        return Panel(f"Linear probe against {x}", predictor, "linear probe", lines, "")

    panels = [
        over("Entropy of the projector", "nats", "at", lambda row: row["projector"]["entropy"]),
        over("Linear probe", "accuracy", "scored_at", lambda row: row["linear"]),
        against("entropy", "entropy of the projector, mean over steps"),
        against("agreement", "agreement of the projector, mean over steps"),
    ]
    save_plot(path, panels, columns=2, size=(380, 280), right=110)


def show(rows: list[Row], out: Path, plot: Path) -> str:
    """The page of results; writes the figure."""
    rows = measured_rows(rows, SAME)
    draw(rows, plot)
    batch = rows[0]["config"]["batch"]
    note = (
        f"{rows[0]['steps']} steps of {batch} images, seeds {', '.join(map(str, sorted({r['seed'] for r in rows})))}; "
        "everything else as in the shared arm of [methods](methods.md). Measured on a tenth of the training images, "
        "which were not trained on: accuracies with "
        f"{BANK:,} labelled images on {HELD_OUT:,}, spectra on two views each of {IMAGES:,}. Entropy is the collision "
        "entropy of the correlation matrix, in nats; agreement the mean over its dimensions of the correlation between "
        "two views of an image. Each figure is taken as it is at last, and as its mean over the steps, which is large "
        "where it rises early. ± is half the 95 % interval over seeds (Student's t)."
    )
    about = (
        f"Spearman's rank correlation over {len(rows)} runs, with a 95 % interval from {DRAWS:,} draws of runs with "
        "replacement; runs of one arm are not independent, so that intervals of all runs are too narrow. Within arms "
        "are deviations from the arm's mean."
    )
    parts = [heading("Entropy, agreement and accuracy", f"{COMMAND}; --table", rows[-1]["environment"], note)]
    parts += [f"![entropy and accuracy over the steps, and against each other]({plot.name})"]
    parts += ["## Arms", arms_table(rows)]
    parts += ["## Which figure predicts the linear probe at last?", about, correlations(rows)]
    parts += [
        "## What is left",
        "The same of what is left of the ranks when those of the other are known.",
        left_over(rows),
    ]
    parts += [f"Rows: `{out.name}`."]
    return "\n\n".join(parts)


COMMAND = "python benchmarks/cause.py --data path/to/cifar10 --seeds 0 1 2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="CIFAR-10 as a Parquet folder, or the name cifar10")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--plot", type=Path, default=Path("docs/results/cause.svg"))
    args = parse_arguments(parser, "cause.jsonl", threads=1, required="data")
    print(show(read_or_run(args, jobs(args), SAME), args.out, args.plot))


if __name__ == "__main__":
    main()
