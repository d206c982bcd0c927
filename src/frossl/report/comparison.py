"""A comparison in words and tables, in the terminal and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from frossl.evals import columns, label_free, noun
from frossl.evals.ranking import Ranking
from frossl.evals.suite import START
from frossl.report.study import ArmResult, BudgetResult, Study, measures
from frossl.report.table import Cell, Table, for_terminal, markdown, minus, number
from frossl.report.terminal import duration

SPENT = {"epoch": "epochs", "images": "images", "views": "views", "seconds": "minutes"}


def conclude(result: BudgetResult, measure: str) -> str:
    """One sentence on how the arms stand by ``measure``, no more than the seeds support."""
    ranking = result.rankings[measure]
    names = list(ranking.means)
    by = f"by {columns()[measure].title}"
    if len(names) == 1:
        return f"Only {arm_name(names[0])} can be judged {by}: there is nothing to compare it with."
    seeds = f"{ranking.seeds} seed{'s' * (ranking.seeds > 1)}"
    if ranking.margin is None:
        return (
            f"With one seed no arm can be said to be ahead {by}; the highest value is that of {arm_name(names[0])}, "
            f"{_points(ranking, names[0], names[1])} points above the next."
        )
    margin = f"± {100 * ranking.margin:.1f}"
    behind = [name for name in names if ranking.apart(names[0], name)]
    level = [name for name in names if name not in behind]
    if not behind:
        gap = _points(ranking, names[0], names[-1])
        several = "The two" if len(names) == 2 else f"The {len(names)}"
        return f"{several} arms cannot be told apart {by}: they lie within {gap} points, {margin} over {seeds}."
    gap = f"{arm_name(behind[0])} by {_points(ranking, names[0], behind[0])} {margin} points"
    others = f", and of {_listed([arm_name(name) for name in behind[1:]])} by more" if behind[1:] else ""
    ahead = f"{arm_name(names[0])} is ahead of {gap}{others} ({seeds})."
    if len(level) == 1:
        return f"B{by[1:]}, {ahead}"
    return f"{_listed([arm_name(name) for name in level])} cannot be told apart {by}; {ahead}"


def left_out(result: BudgetResult) -> list[str]:
    """Sentences on arms that the ranking does not tell of, or not whole."""
    said = []
    for arm in result.arms:
        if arm.diverged:
            over = len(arm.seeds) + len(arm.diverged)
            said.append(f"{arm_name(arm.arm)} diverged with {len(arm.diverged)} of {over} seeds and is not ranked.")
    missing = sum(len(arm.missing) for arm in result.arms)
    planned = sum(len(arm.seeds) + len(arm.diverged) + len(arm.missing) for arm in result.arms)
    return [*said, f"{missing} of {planned} runs with {result.budget} are not finished."] if missing else said


def arm_name(arm: str) -> str:
    """An arm as it is shown.

    >>> arm_name("frossl:4 --lr 1e-3")
    'frossl V=4 --lr 1e-3'
    """
    head, space, rest = arm.partition(" ")
    method, _, views = head.rpartition(":")
    return (f"{method} V={views}" if method and views.isdigit() else head) + space + rest


def _points(ranking: Ranking, one: str, other: str) -> str:
    return f"{100 * (ranking.means[one] - ranking.means[other]):.1f}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def in_order(result: BudgetResult) -> list[ArmResult]:
    """Arms from the best, as far as they are ranked, then the others."""
    order = list(result.rankings[result.measure].means) if result.measure else []
    return sorted(result.arms, key=lambda arm: order.index(arm.arm) if arm.arm in order else len(order))


def tables(result: BudgetResult, spread: bool = True) -> list[Table]:
    """What there is to tell in numbers; ``spread`` over seeds with accuracies."""
    arms = in_order(result)
    made = [_accuracies(result, arms, spread)]
    rows = []
    for arm in arms:
        step = None if arm.step_seconds is None else 1000 * arm.step_seconds
        memory = None if arm.peak_memory is None else arm.peak_memory / 2**20
        rows.append([Cell(arm_name(arm.arm)), *_amounts(arm.spent), number(step, 0), number(memory, 0)])
    made.append(Table("What was spent", ["arm", *SPENT.values(), "ms / step", "peak MiB"], rows))
    if result.target is not None:
        rows = []
        for arm in arms:
            there = Cell() if arm.reached is None else Cell(f"{arm.reached['seeds']} of {len(arm.seeds)}")
            rows.append([Cell(arm_name(arm.arm)), *_amounts(arm.reached or {}), there])
        title = f"To reach a kNN of {result.target:.3f} while training"
        made.append(Table(title, ["arm", *SPENT.values(), "seeds that did"], rows))
    shown = {name: column for name, column in label_free().items() if any(name in arm.values for arm in arms)}
    if shown:
        rows = [
            [Cell(arm_name(a.arm)), *(_mean(a.values.get(name), column.digits) for name, column in shown.items())]
            for a in arms
        ]
        if result.agreements:
            found = [result.agreements.get(name) for name in shown]
            cells = (Cell(minus(f"{f.spearman:+.2f}, {f.kendall:+.2f}")) if f else Cell() for f in found)
            rows.append([Cell(f"Spearman, Kendall with {columns()[result.measure or 'knn'].heading}"), *cells])
        made.append(Table("Without labels", ["arm", *(column.heading for column in shown.values())], rows))
    return made


def _accuracies(result: BudgetResult, arms: Sequence[ArmResult], spread: bool) -> Table:
    """Scores of arms, how far they are behind, and those of the controls, over all runs."""
    shown = [name for name in measures() if any(name in arm.values for arm in arms)]
    rows = []
    for arm in arms:
        row = [Cell(arm_name(arm.arm))]
        for name in shown:
            values, ranking = arm.values.get(name), result.rankings.get(name)
            behind = Cell("" if values else "–")
            if ranking is not None and arm.arm in ranking.means and arm.arm != (first := next(iter(ranking.means))):
                margin = "" if ranking.margin is None else f" ± {100 * ranking.margin:.1f}"
                behind = Cell(_points(ranking, first, arm.arm) + margin)
            row += [_mean(values, spread=spread), behind]
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
        found = [[x for values in of for x in values.get(name, ())] for name in shown]
        if any(found):
            rows.append([Cell(control), *(c for values in found for c in (_mean(values, spread=spread), Cell("")))])
            rows[-1].append(Cell(""))
    headings = (text for name in shown for text in (columns()[name].heading, "points behind"))
    return Table(noun(shown).capitalize(), ["arm", *headings, "seeds"], rows)


def _mean(values: Sequence[float] | None, digits: int = 3, spread: bool = False) -> Cell:
    """The mean, and the lowest and highest if they differ as shown."""
    if not values:
        return Cell()
    mean, low, high = (number(x, digits).value for x in (statistics.fmean(values), min(values), max(values)))
    return Cell(f"{mean} ({low} to {high})" if spread and low != high else mean)


def _amounts(spent: dict[str, float]) -> list[Cell]:
    """Cells of :data:`SPENT`."""
    shown = spent | ({"seconds": spent["seconds"] / 60} if "seconds" in spent else {})
    return [number(shown.get(axis), 2 if axis in ("epoch", "seconds") else 0) for axis in SPENT]


def agreement_note(result: BudgetResult) -> str | None:
    """How far the rank correlations may be trusted."""
    found = {columns()[name]: agreement for name, agreement in result.agreements.items()}
    if not found:
        return None
    sure = [column.heading for column, a in found.items() if a.p < 0.05]
    told = f"{_listed(sure)} would be by chance in under 5 % of random orders" if sure else "none is beyond chance"
    lower = [column.title for column in found if column.better == "lower"]
    signs = f" (lower is better for {_listed(lower)})" if lower else ""
    return (
        f"Rank correlations are over {next(iter(found.values())).arms} arms, with signs such that + is agreement with "
        f"accuracy{signs}: {told} (Kendall, p < 0.05, not corrected for {len(found)} figures). They tell of these arms "
        "on these data, no more."
    )


NOTES = (
    "Accuracies are means over seeds, with the lowest and highest in brackets, on held-out images that are the same "
    "for every arm; where the data bring none, each seed holds out its own. ± is the 95 % margin of all differences "
    "at once over seeds (Tukey, arms and seeds as a two-way layout, the same spread in every arm). It does not hold "
    "for other held-out images.",
    "Minutes are those of the training loop, with the looks of the monitor and without the final evaluation; steps are "
    "medians, and memory is the peak of the process with the images in it, all on this machine as it was. Views are "
    "those that pass the trained encoder; passes of averaged networks are not counted.",
)


def as_markdown(study: Study) -> str:
    """The study as a page of text that can be committed."""
    machine = study.about["machine"]
    where = ", ".join(f"{k} {machine[k]}" for k in ("processor", "cores", "accelerator", "python") if k in machine)
    lines = [f"# Comparison on {data_name(study)}", "", f"`{study.about['command']}`", ""]
    lines += [f"{where}; frossl {study.about['frossl']}."]
    for result in study.results:
        lines += ["", f"## Budget {result.budget}", ""]
        lines += [f"**{conclude(result, m)}**" if m == result.measure else conclude(result, m) for m in result.rankings]
        lines += left_out(result)
        for table in tables(result):
            lines += markdown(table)
        note = agreement_note(result)
        lines += ["", note] if note else []
    return "\n".join([*lines, "", *NOTES, ""])


def data_name(study: Study) -> str:
    """What the runs were on, in short."""
    return Path(study.about["runs"][0]["config"]["data"]).name


def show_comparison(console: Console, study: Study) -> None:
    """The tables and sentences of every budget."""
    for result in study.results:
        for table in tables(result, spread=False)[:3] if any(a.seeds for a in result.arms) else []:
            console.print(for_terminal(replace(table, title=f"{table.title}, budget {result.budget}")))
        for measure in result.rankings:
            style = "bold" if measure == result.measure else ""
            console.print(escape(conclude(result, measure)), style=style, highlight=False)
        for sentence in left_out(result):
            console.print(escape(sentence), highlight=False)
    if not any(result.rankings for result in study.results):
        console.print("No accuracy is known by which arms could be ranked.")


def run_time(study: Study) -> str:
    """Time in the loops of all runs."""
    return duration(sum(t.spent()["seconds"] for t in study.trials if t.record and t.record.train))
