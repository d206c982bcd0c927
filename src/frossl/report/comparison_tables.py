"""The tables of a comparison."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from frossl.evals import columns, label_free, noun
from frossl.evals.ranking import Ranking, half_interval
from frossl.evals.suite import START
from frossl.methods import METHODS
from frossl.report.study import ArmResult, BudgetResult, measures
from frossl.report.table import Cell, Table, minus, number
from frossl.report.targets import WATCHED, Reached

SPENT = {"epoch": "epochs", "images": "images", "views": "views", "seconds": "minutes"}


def arm_name(arm: str) -> str:
    """An arm as it is shown.

    >>> arm_name("frossl:4 --lr 1e-3")
    'frossl V=4 --lr 1e-3'
    """
    head, space, rest = arm.partition(" ")
    method, _, views = head.rpartition(":")
    return (f"{method} V={views}" if method and views.isdigit() else head) + space + rest


def in_order(result: BudgetResult) -> list[ArmResult]:
    """Arms from the best, as far as they are ranked, then the others."""
    order = list(result.rankings[result.measure].means) if result.measure else []
    return sorted(result.arms, key=lambda arm: order.index(arm.arm) if arm.arm in order else len(order))


def tables(result: BudgetResult, *, brief: bool = False) -> list[Table]:
    """What there is to tell in numbers; ``brief``, for the terminal, with margins as one instead of their parts."""
    arms = in_order(result)
    made = [_accuracies(result, arms, brief), _spent(arms), _targets(result, arms), _label_free(result, arms)]
    return [table for table in made if table is not None]


def tuning_table(about: Mapping[str, Any]) -> Table | None:
    """The learning rates that were tried for each arm, and what came of them; None if none were."""
    tuning = about.get("tuning")
    if not tuning:
        return None
    tried: dict[str, list[Cell]] = {}
    for trial in tuning["trials"]:
        score, chosen = number(trial["score"]).value, trial["lr"] == tuning["chosen"][trial["arm"]]
        tried.setdefault(trial["arm"], []).append(Cell(f"{trial['lr']:g}: {score}", best=chosen))
    middle = max(len(cells) for cells in tried.values()) // 2
    rows = []
    for arm, cells in tried.items():
        beside = [Cell()] * (middle - len(cells) // 2)  # of an arm with fewer rates
        rows.append([Cell(arm_name(arm)), *beside, *cells, *beside, Cell(f"{tuning['chosen'][arm]:g}")])
    steps = [f"own × {tuning['factor'] ** step:.3g}" for step in range(-middle, middle + 1)]
    what = columns()[tuning["measure"]].title
    title = (
        f"Learning rates by {what} on {tuning['images']:,} training images kept aside, after {tuning['budget']} each"
    )
    return Table(title, ["arm", *steps, "chosen"], rows)


def tuning_notes(about: Mapping[str, Any]) -> list[str]:
    """Sentences on how the arms came by their learning rates."""
    tuning = about.get("tuning")
    if not tuning:
        return ["No learning rate was chosen for its arm: each has its own options, or those of the recipe."]
    edges = []
    for arm, rate in tuning["chosen"].items():
        rates = [trial["lr"] for trial in tuning["trials"] if trial["arm"] == arm]
        edges += [arm_name(arm)] * (rate in (min(rates), max(rates)))
    own = {run["arm"]: run["config"].get("method") for run in about["runs"] if run["arm"] not in tuning["chosen"]}
    own = [arm_name(arm) for arm, method in own.items() if method not in METHODS or METHODS[method].trains]
    said = f"Each {'other ' if own else ''}arm's learning rate was chosen by one short run for each rate, with no "
    said += "held-out image."
    edge = f" A better one may lie beyond those tried for {', '.join(edges)}." if edges else ""
    none = f"No learning rate was chosen for {', '.join(own)}: these have their own options, or those of the recipe."
    return [none, said + edge] if own else [said + edge]


def _spent(arms: Sequence[ArmResult]) -> Table:
    rows = []
    for arm in arms:
        step = None if arm.step_seconds is None else 1000 * arm.step_seconds
        memory = None if arm.peak_memory is None else arm.peak_memory / 2**20
        amounts = [_amount(axis, arm.spent.get(axis)) for axis in SPENT]
        off = "".join(f", seed {seed} {minus(f'{100 * off:+.0f}')} %" for seed, off in arm.off_pace)
        step_cell = Cell(number(step, 0).value + off, best=bool(off))
        rows.append([Cell(arm_name(arm.arm)), *amounts, step_cell, number(memory, 0)])
    return Table("What was spent", ["arm", *SPENT.values(), "ms / step", "peak MiB"], rows)


def _targets(result: BudgetResult, arms: Sequence[ArmResult]) -> Table | None:
    """What it took to reach the target, if there is one; a bound where that was not seen."""
    target = result.target
    if target.value is None:
        return None
    rows = [[Cell(arm_name(arm.arm)), *_reached(arm.reached)] for arm in arms]
    title = f"To reach {target.value:.3f} by the monitor's {WATCHED[target.metric]} while training"
    return Table(title, ["arm", *SPENT.values(), "seeds that did"], rows)


def _reached(reached: Reached | None) -> list[Cell]:
    """Cells of :data:`SPENT` and of how many seeds got there."""
    if reached is None:
        return [Cell() for _ in (*SPENT, "seeds")]
    cells = []
    for axis in SPENT:
        cell = _amount(axis, reached.means[axis], reached.margins.get(axis))
        if reached.bound:
            cell = Cell("unknown" if reached.bound == "unknown" else f"{reached.bound} {cell.value}")
        cells.append(cell)
    early = f", {reached.early} before the first look" if reached.early else ""
    return [*cells, Cell(f"{reached.seeds} of {reached.watched}{early}")]


def _label_free(result: BudgetResult, arms: Sequence[ArmResult]) -> Table | None:
    """Figures that need no labels, and how they are correlated with accuracy."""
    shown = {name: column for name, column in label_free().items() if any(name in arm.values for arm in arms)}
    if not shown:
        return None
    rows = [
        [Cell(arm_name(a.arm)), *(_mean(a.values.get(name), column.digits) for name, column in shown.items())]
        for a in arms
    ]
    if result.agreements:
        found = [result.agreements.get(name) for name in shown]
        cells = (Cell(minus(f"{f.spearman:+.2f}, {f.kendall:+.2f}")) if f else Cell() for f in found)
        rows.append([Cell(f"Spearman, Kendall with {columns()[result.measure or 'knn'].heading}"), *cells])
    return Table("Without labels", ["arm", *(column.heading for column in shown.values())], rows)


def _accuracies(result: BudgetResult, arms: Sequence[ArmResult], brief: bool) -> Table:
    """Scores of arms, how far they are behind, and those of the controls, over all runs."""
    shown = [name for name in measures() if any(name in arm.values for arm in arms)]
    rows = []
    for arm in arms:
        row = [Cell(arm_name(arm.arm))]
        for name in shown:
            values, ranking = arm.values.get(name), result.rankings.get(name)
            behind = Cell("" if values else "–")
            if ranking is not None and arm.arm in ranking.means and arm.arm != (first := next(iter(ranking.means))):
                margins = {" seeds": ranking.margin, " images": ranking.over_images(first, arm.arm)}
                margins = {"": ranking.within(first, arm.arm)} if brief else margins
                off = (f" ± {100 * margin:.1f}{what}" for what, margin in margins.items() if margin is not None)
                behind = Cell(points(ranking, first, arm.arm) + "".join(off))
            row += [_mean(values), behind]
        others = {"diverged": arm.diverged, "not finished": arm.missing}
        seeds = [f"{len(arm.seeds)}", *(f"{len(seeds)} {what}" for what, seeds in others.items() if seeds)]
        rows.append([*row, Cell(", ".join(seeds))])
    controls = {
        START: [a.start for a in arms],
        "untrained": [a.untrained for a in arms],
        "raw pixels": [a.pixels for a in arms],
        "guess": [a.guess for a in arms],
    }
    for control, of in controls.items():
        found = [_by_seed(arms, [values.get(name, []) for values in of]) for name in shown]
        if any(found):
            rows.append([Cell(control), *(c for values in found for c in (_mean(values), Cell("")))])
            rows[-1].append(Cell(""))
    headings = (text for name in shown for text in (columns()[name].heading, "points behind"))
    return Table(noun(shown).capitalize(), ["arm", *headings, "seeds"], rows)


def _by_seed(arms: Sequence[ArmResult], values: Sequence[list[float]]) -> list[float]:
    """A value for each seed, the mean over arms: those of one encoder have the same controls."""
    of_seed: dict[int, list[float]] = {}
    for arm, of_arm in zip(arms, values, strict=True):
        for seed, value in zip(arm.seeds, of_arm, strict=False):
            of_seed.setdefault(seed, []).append(value)
    return [statistics.fmean(found) for found in of_seed.values()]


def _mean(values: Sequence[float] | None, digits: int = 3) -> Cell:
    """The mean over seeds, and half its 95 % interval if there are several that differ."""
    if not values:
        return Cell()
    return number(statistics.fmean(values), digits, half_interval(values) if len(set(values)) > 1 else None)


def _amount(axis: str, value: float | None, margin: float | None = None) -> Cell:
    """A cell of one of :data:`SPENT`."""
    per = 60 if axis == "seconds" else 1
    half = None if margin is None else margin / per
    return number(None if value is None else value / per, 2 if axis in ("epoch", "seconds") else 0, half)


def points(ranking: Ranking, one: str, other: str) -> str:
    """How many points an arm is above another."""
    return f"{100 * (ranking.means[one] - ranking.means[other]):.1f}"
