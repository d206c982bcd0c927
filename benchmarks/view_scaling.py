"""Where does FroSSL collapse? Weights and view scalings against what docs/theory.md says of them.

    python benchmarks/view_scaling.py --data path/to/cifar10 [--steps 200] [--threads 1] [--seeds 0] [--views 2 8]
    python benchmarks/view_scaling.py --table > docs/results/view-scaling.md

Encoder, views and optimiser are those of cifar10-cpu at batch 64 with the head 512-bn-relu-512. Trained on is what is
left of the training images without a tenth, which is measured; the test images are not read. The projections of two
views each of 2,048 of those, batch norms taking statistics of the batch, give the spectrum of their correlation and, in
its eigenvectors, how much the views agree. One process per run; finished rows of --out are not run again.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import statistics
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from common import Row, environment, heading, measured_rows, parse_arguments, read_or_run, seeds_in_words, spread, table
from frossl.core.length import Length
from frossl.data.loader import view_batches
from frossl.evals import measure
from frossl.evals.extract import first, sample
from frossl.losses.frossl import ViewScaling
from frossl.methods import find_method
from frossl.runs.config import Config
from frossl.train.loop import Learner, build, train
from frossl.views.recipes import pair
from plot import BLUE, GREY, RED, Line, Panel, save_plot
from training import NEVER, images_of, recipe_of_studies

WEIGHTS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
BATCH, WIDTH = 64, 512
IMAGES, BANK, VIEWS_SEED, TOP = 2048, 10_000, 7, 10
VALIDATION = 0.1
COLLAPSED = 2.0
"""Effective rank of the projections below which a run is called collapsed: about one direction is left."""
COLOURS = {"unbiased": BLUE, "pairs": RED, "mean": GREY}
SAME = ("scaling", "views", "weight", "steps", "seed")


def strength(scaling: str, views: int, weight: float) -> float:
    """b of docs/theory.md: w D / N, with w as the scaling "unbiased" would have to be given it."""
    factor = {"unbiased": 1.0, "pairs": views - 1, "mean": (views - 1) / views}[scaling]
    return weight * factor * WIDTH / BATCH


def config_of(data: str, scaling: str, views: int, weight: float, steps: int, seed: int) -> Config:
    """The configuration of a run."""
    given = {"invariance_weight": weight, "view_scaling": scaling, "projector": f"{WIDTH}-bn-relu-{WIDTH}"}
    objective = find_method("frossl").Config(**given)
    recipe = recipe_of_studies()
    changes = {"data": data, "views": views, "batch": BATCH, "length": f"{steps}it", "seed": seed}
    never = {"monitor_every": NEVER, "checkpoint_every": NEVER, "telemetry_every": 0}
    return dataclasses.replace(recipe, objective=objective, **changes, **never)


@torch.no_grad()
def agreement(z_VND: Tensor) -> Row:
    """Of two views: the largest shares of the variance of their correlation, and the views' correlation along each."""
    z_VND = z_VND.double() - z_VND.double().mean(1, keepdim=True)
    z_VND = z_VND / z_VND.norm(dim=1, keepdim=True).clamp_min(1e-12)
    within_DD, across_DD = (z_VND.mT @ z_VND).mean(0), z_VND[0].T @ z_VND[1]
    values, vectors_DD = torch.linalg.eigh(within_DD)
    values, vectors_DD = values.flip(0), vectors_DD.flip(1)
    correlations = ((vectors_DD.T @ across_DD) * vectors_DD.T).sum(1) / values.clamp_min(1e-12)
    shares = values / values.sum()
    rank = math.exp(-torch.special.xlogy(shares.clamp_min(0), shares.clamp_min(1e-300)).sum().item())
    return {
        "projector_rank": rank,
        "shares": [round(x, 5) for x in shares[:TOP].tolist()],
        "correlations": [round(x, 4) for x in correlations[:TOP].tolist()],
    }


def trained(config: Config, threads: int) -> Row:
    """Trains as ``config`` says; spectrum and agreement of the projections, and kNN and rank of the features."""
    torch.set_num_threads(threads)
    data = images_of(config, VALIDATION)
    learner, plan = build(config, data)
    spec = plan.spec
    chunks = view_batches(first(data.test, IMAGES), pair(plan.recipe), spec.mean, spec.std, seed=VIEWS_SEED)
    views = [groups[0] for groups in chunks]
    start = agreement(torch.cat([projected(copy.deepcopy(learner), x) for x in views], 1))
    with tempfile.TemporaryDirectory() as directory:
        if train(learner, plan, data, Length.parse(config.length), Path(directory)):
            raise KeyboardInterrupt
    end = agreement(torch.cat([projected(learner, x) for x in views], 1))
    features = plan.extractor().data(learner.backbone.eval(), sample(data, BANK, BANK), spec)
    return end | {f"start_{name}": value for name, value in start.items()} | measure(features, ["knn", "rank"])


@torch.no_grad()
def projected(learner: Learner, views: Tensor) -> Tensor:
    """Projections ``(V, N, D)`` with statistics of the batch, as in training."""
    learner.train()
    z_VND = learner.method.embed(learner.encode(learner.backbone, views))
    assert z_VND is not None
    return z_VND.float()


def jobs(args: argparse.Namespace) -> Iterator[tuple[Row, Any, tuple[Any, ...]]]:
    about = environment(args.threads)
    for seed, views, scaling, weight in product(args.seeds, args.views, get_args(ViewScaling), args.weights):
        if (scaling, views) == ("pairs", 2):
            continue  # unbiased is the same
        row = {"scaling": scaling, "views": views, "weight": weight, "steps": args.steps, "seed": seed}
        row |= {"strength": strength(scaling, views, weight), "environment": about}
        yield row, trained, (config_of(args.data, scaling, views, weight, args.steps, seed), args.threads)


def show(rows: list[Row], out: Path, plot: Path) -> str:
    """The page of results; writes the figure."""
    rows = sorted(measured_rows(rows, SAME), key=lambda row: row["strength"])
    arms = {
        key: [r for r in rows if (r["scaling"], r["views"]) == key]
        for key in {(r["scaling"], r["views"]): 0 for r in rows}
    }

    def panel(title: str, x: str, name: str) -> Panel:
        lines = []
        for (scaling, views), own in sorted(arms.items()):
            ranks = {r[name]: [] for r in own}
            for r in own:
                ranks[r[name]].append(r["projector_rank"])
            points = [(at, statistics.fmean(values)) for at, values in ranks.items()]
            lines.append(Line(f"{scaling}, V = {views}", points, COLOURS[scaling], views > 2))
        return Panel(title, x, "effective rank of the projections", lines)

    save_plot(
        plot,
        [panel("By the weight that is given", "w", "weight"), panel("By b = w D / N of unbiased", "b", "strength")],
    )
    lines = []
    for key in dict.fromkeys((r["strength"], r["scaling"], r["views"], r["weight"]) for r in rows):
        same = [r for r in rows if (r["strength"], r["scaling"], r["views"], r["weight"]) == key]
        b, scaling, views, weight = key
        lead = [r["correlations"][0] - r["correlations"][1] for r in same]
        predicted = sum(x > 2 / b for x in lead)
        observed = sum(r["projector_rank"] < COLLAPSED for r in same)
        figures = [
            spread([r[name] for r in same], digits)
            for name, digits in (("projector_rank", 1), ("knn", 3), ("effective_rank", 1))
        ]
        lines.append(
            [
                f"{b:.3g}",
                scaling,
                views,
                f"{weight:g}",
                len(same),
                *figures,
                f"{statistics.fmean(lead):.3f}",
                f"{2 / b:.3f}",
                f"{predicted} of {len(same)}",
                f"{observed} of {len(same)}",
            ]
        )
    seeds = sorted({r["seed"] for r in rows})
    agree = sum(
        (r["correlations"][0] - r["correlations"][1] > 2 / r["strength"]) == (r["projector_rank"] < COLLAPSED)
        for r in rows
    )
    note = (
        f"{rows[0]['steps']} steps of {BATCH} images, head {WIDTH}-bn-relu-{WIDTH}, so that D / N = {WIDTH / BATCH:g}; "
        f"{seeds_in_words(seeds)}. b is w D / N, with w as the scaling unbiased would have to be given it. Ranks are "
        "exponentials of the von Neumann entropy; that of projections is of their correlation. The lead is how much "
        "more the views agree along the first eigenvector than along the second; by [theory](../theory.md) one "
        f"direction alone is stable where it exceeds 2 / b. Called collapsed is a rank of projections below "
        f"{COLLAPSED:g}. "
        f"Prediction and outcome are the same in {agree} of {len(rows)} runs."
    )
    headings = [
        "b",
        "scaling",
        "V",
        "w",
        "seeds",
        "rank of projections",
        "kNN",
        "rank of features",
        "lead",
        "2 / b",
        "collapse by theory",
        "collapsed",
    ]
    command = "python benchmarks/view_scaling.py --data DATA; --table"
    page = [heading("View scaling and collapse", command, rows[-1]["environment"], note)]
    return "\n\n".join(
        [
            *page,
            f"![effective rank against weight and strength]({plot.name})",
            table(headings, lines),
            f"Rows: `{out.name}`.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--views", nargs="+", type=int, default=[2, 8])
    parser.add_argument("--weights", nargs="+", type=float, default=WEIGHTS)
    parser.add_argument("--plot", type=Path, default=Path("docs/results/view-scaling.svg"))
    args = parse_arguments(parser, "view-scaling.jsonl", threads=1)
    print(show(read_or_run(args, jobs(args), SAME), args.out, args.plot))


if __name__ == "__main__":
    main()
