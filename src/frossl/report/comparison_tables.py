"""The tables of a comparison."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from frossl.evals import columns, label_free, noun
from frossl.evals.ranking import Ranking, half_interval
from frossl.methods import METHODS
from frossl.report.controls import FIELDS, control_values
from frossl.report.study import ArmResult, BudgetResult, at_seeds, measures, rankable
from frossl.report.table import Cell, Table, minus, number
from frossl.report.targets import WATCHED

SPENT = {"epoch": "epochs", "images": "images", "views": "views", "seconds": "minutes"}


def arm_name(arm: str) -> str:
    """The name of an arm in tables and charts.

    >>> arm_name("frossl:4 --lr 1e-3")
    'frossl V=4 --lr 1e-3'
    """
    head, space, rest = arm.partition(" ")
    method, _, views = head.rpartition(":")
    return (f"{method} V={views}" if method and views.isdigit() else head) + space + rest


def in_order(result: BudgetResult) -> list[ArmResult]:
    """Ranked arms, best first, then the others."""
    order = list(result.rankings[result.measure].means) if result.measure else []
    return sorted(result.arms, key=lambda arm: order.index(arm.arm) if arm.arm in order else len(order))


def tables(result: BudgetResult, *, brief: bool = False) -> list[Table]:
    """All tables; ``brief`` ones, for the terminal, have one margin instead of its parts."""
    arms = in_order(result)
    found = [_accuracies(result, arms, brief), _spent(arms), _targets(result, arms), _label_free(result, arms)]
    return [table for table in found if table is not None]


def tuning_table(about: Mapping[str, Any]) -> Table | None:
    """The learning rates that were tried for each arm and their scores; None if none were."""
    tuning = about.get("tuning")
    if not tuning:
        return None
    tried: dict[str, list[Cell]] = {}
    for trial in tuning["trials"]:
        text = f"{trial['lr']:g}: {number(trial['score']).value}"
        tried.setdefault(trial["arm"], []).append(Cell(text, best=trial["lr"] == tuning["chosen"][trial["arm"]]))
    middle = max(map(len, tried.values())) // 2
    rows = []
    for arm, cells in tried.items():
        blank = [Cell()] * (middle - len(cells) // 2)  # an arm with fewer rates has its own in the same column
        rows.append([Cell(arm_name(arm)), *blank, *cells, *blank, Cell(f"{tuning['chosen'][arm]:g}")])
    steps = [f"own × {tuning['factor'] ** step:.3g}" for step in range(-middle, middle + 1)]
    score = columns()[tuning["measure"]].title
    images = f"{tuning['images']:,} training images kept aside"
    return Table(
        f"Learning rates by {score} on {images}, after {tuning['budget']} each", ["arm", *steps, "chosen"], rows
    )


def tuning_notes(about: Mapping[str, Any]) -> list[str]:
    """Sentences on how learning rates were chosen."""
    tuning = about.get("tuning")
    if not tuning:
        return ["No learning rate was chosen for its arm: each has its own options, or those of the recipe."]
    edges = []
    for arm, rate in tuning["chosen"].items():
        rates = [trial["lr"] for trial in tuning["trials"] if trial["arm"] == arm]
        edges += [arm_name(arm)] * (rate in (min(rates), max(rates)))
    methods = {run["arm"]: run["config"].get("method") for run in about["runs"] if run["arm"] not in tuning["chosen"]}
    others = [arm_name(arm) for arm, name in methods.items() if name not in METHODS or METHODS[name].trains]
    notes = []
    if others:
        arms = ", ".join(others)
        notes.append(f"No learning rate was chosen for {arms}: these have their own options, or those of the recipe.")
    said = f"Each {'other ' if others else ''}arm's learning rate was chosen by one short run for each rate, with no "
    said += "held-out image."
    return [*notes, said + (f" A better one may lie beyond those tried for {', '.join(edges)}." if edges else "")]


def _accuracies(result: BudgetResult, arms: Sequence[ArmResult], brief: bool) -> Table:
    """Scores of arms, how far they are behind the best, and scores of the controls, over all runs."""
    shown = [name for name in measures() if any(name in arm.values for arm in arms)]
    rows = []
    for arm in arms:
        cells = [c for name in shown for c in (_mean(_compared(result, arm, name)), _behind(result, arm, name, brief))]
        states = {"diverged": arm.diverged, "not finished": arm.missing}
        seeds = [f"{len(arm.seeds)}", *(f"{len(seeds)} {state}" for state, seeds in states.items() if seeds)]
        rows.append([Cell(arm_name(arm.arm)), *cells, Cell(", ".join(seeds))])
    for control in FIELDS:
        found = [control_values(arms, control, name) for name in shown]
        if any(found):
            rows.append([Cell(control), *(c for values in found for c in (_mean(values), Cell(""))), Cell("")])
    headings = (text for name in shown for text in (columns()[name].heading, "points behind"))
    return Table(noun(shown).capitalize(), ["arm", *headings, "seeds"], rows)


def _compared(result: BudgetResult, arm: ArmResult, measure: str) -> list[float] | None:
    """The values of an arm that is ranked by ``measure``, over the seeds that ranked arms share; else over its own."""
    values, ranking = arm.values.get(measure), result.rankings.get(measure)
    if values is None or ranking is None or arm.arm not in ranking.means:
        return values
    return at_seeds(arm, values, rankable(result.arms, measure)[1])


def _behind(result: BudgetResult, arm: ArmResult, measure: str, brief: bool) -> Cell:
    """How many points an arm is behind the first, with margins, which a ``brief`` table has as one."""
    ranking, values = result.rankings.get(measure), arm.values.get(measure)
    if ranking is None or arm.arm not in ranking.means or arm.arm == (first := next(iter(ranking.means))):
        return Cell("" if values else "–")
    margins = {" over seeds": ranking.margin, " over images": ranking.over_images(first, arm.arm)}
    margins = {"": ranking.within(first, arm.arm)} if brief else margins
    texts = ", ".join(f"± {100 * margin:.1f}{of}" for of, margin in margins.items() if margin is not None)
    return Cell(points(ranking, first, arm.arm) + (f" {texts}" if brief else f" ({texts})") * bool(texts))


def _spent(arms: Sequence[ArmResult]) -> Table:
    rows = []
    for arm in arms:
        step, memory = arm.step_seconds, arm.peak_memory
        off = "".join(f", seed {seed} {minus(f'{100 * off:+.0f}')} %" for seed, off in arm.off_pace)
        milliseconds = number(step and 1000 * step, 0).value + off
        amounts = (_amount(axis, arm.spent.get(axis)) for axis in SPENT)
        cells = [*amounts, Cell(milliseconds, best=bool(off)), number(memory and memory / 2**20, 0)]
        rows.append([Cell(arm_name(arm.arm)), *cells])
    return Table("What was spent", ["arm", *SPENT.values(), "ms / step", "peak MiB"], rows)


def _targets(result: BudgetResult, arms: Sequence[ArmResult]) -> Table | None:
    """The cost of reaching the target, if there is one; a bound where reaching it was not seen."""
    target = result.target
    if target.value is None:
        return None
    rows = []
    for arm in arms:
        reached, cells = arm.reached, [Cell()] * (len(SPENT) + 1)
        if reached is not None:
            cells = [_amount(axis, reached.means[axis], reached.margins.get(axis)) for axis in SPENT]
            if reached.bound:
                unknown = reached.bound == "unknown"
                cells = [Cell("unknown" if unknown else f"{reached.bound} {cell.value}") for cell in cells]
            cells.append(Cell(f"{reached.seeds} of {reached.watched}"))
        rows.append([Cell(arm_name(arm.arm)), *cells])
    title = f"To reach {target.value:.3f} by the monitor's {WATCHED[target.metric]} while training"
    return Table(title, ["arm", *SPENT.values(), "seeds that did"], rows)


def _label_free(result: BudgetResult, arms: Sequence[ArmResult]) -> Table | None:
    """Figures that need no labels, and how they are correlated with accuracy."""
    shown = {name: column for name, column in label_free().items() if any(name in arm.values for arm in arms)}
    if not shown:
        return None
    rows = [
        [Cell(arm_name(arm.arm)), *(_mean(arm.values.get(name), column.digits) for name, column in shown.items())]
        for arm in arms
    ]
    if result.agreements:
        found = [result.agreements.get(name) for name in shown]
        cells = (Cell(minus(f"{f.spearman:+.2f}, {f.kendall:+.2f}")) if f else Cell() for f in found)
        rows.append([Cell(f"Spearman, Kendall with {columns()[result.measure or 'knn'].heading}"), *cells])
    return Table("Without labels", ["arm", *(column.heading for column in shown.values())], rows)


def _mean(values: Sequence[float] | None, digits: int = 3) -> Cell:
    """The mean over seeds, and half its 95 % interval if there are several that differ."""
    if not values:
        return Cell()
    return number(statistics.fmean(values), digits, half_interval(values) if len(set(values)) > 1 else None)


def _amount(axis: str, value: float | None, margin: float | None = None) -> Cell:
    """A cell of one of :data:`SPENT`."""
    per, digits = 60 if axis == "seconds" else 1, 2 if axis in ("epoch", "seconds") else 0
    return number(value and value / per, digits, margin and margin / per)


def points(ranking: Ranking, one: str, other: str) -> str:
    """How many points an arm is above another."""
    return f"{100 * (ranking.means[one] - ranking.means[other]):.1f}"
