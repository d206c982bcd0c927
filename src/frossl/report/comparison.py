"""A comparison in words and tables, in the terminal and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from frossl.evals.ranking import Ranking
from frossl.evals.suite import HEADINGS
from frossl.report.study import LABEL_FREE, MEASURES, ArmResult, BudgetResult, Study
from frossl.report.terminal import duration
from frossl.report.words import minus

NAMES = {"knn": "kNN", "linear": "the linear probe"}
_RANKS = ("effective_rank", "rankme", "lidar")
SPENT = {"epoch": "epochs", "images": "images", "views": "views", "seconds": "minutes"}


def conclude(result: BudgetResult, measure: str) -> str:
    """One sentence on how the arms stand by ``measure``, no more than the seeds support."""
    ranking = result.rankings[measure]
    names = list(ranking.means)
    by = f"by {NAMES[measure]}"
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


def tables(result: BudgetResult, spread: bool = True) -> list[tuple[str, list[str], list[list[str]]]]:
    """What there is to tell in numbers, as ``(heading, columns, rows)``; ``spread`` over seeds with accuracies."""
    arms = in_order(result)
    measures = [m for m in MEASURES if any(m in a.values for a in arms)]
    accuracy = ["arm", *(text for m in measures for text in (HEADINGS[m], "points behind")), "seeds"]
    made = [
        (
            "Accuracy",
            accuracy,
            [_accuracy(result, arm, measures, spread) for arm in arms] + _controls(arms, measures, spread),
        )
    ]
    spent = [[arm_name(a.arm), *(_amount(k, a.spent.get(k)) for k in SPENT), _step(a), _memory(a)] for a in arms]
    made.append(("What was spent", ["arm", *SPENT.values(), "ms / step", "peak MiB"], spent))
    if result.target is not None:
        rows = [[arm_name(a.arm), *(_amount(k, (a.reached or {}).get(k)) for k in SPENT), _there(a)] for a in arms]
        heading = f"To reach a kNN of {result.target:.3f} while training"
        made.append((heading, ["arm", *SPENT.values(), "seeds that did"], rows))
    figures = [name for name in LABEL_FREE if any(name in a.values for a in arms)]
    if figures:
        rows = [
            [arm_name(a.arm), *(_mean(a.values.get(name), digits=1 if name in _RANKS else 3) for name in figures)]
            for a in arms
        ]
        found = [result.agreements.get(name) for name in figures]
        if any(found):
            rows.append([f"Spearman, Kendall with {HEADINGS[result.measure or 'knn']}"]
                        + [minus(f"{f.spearman:+.2f}, {f.kendall:+.2f}") if f else "–" for f in found])  # fmt: skip
        made.append(("Without labels", ["arm", *(HEADINGS[name] for name in figures)], rows))
    return made


def agreement_note(result: BudgetResult) -> str | None:
    """How far the rank correlations may be trusted."""
    found = list(result.agreements.values())
    if not found:
        return None
    arms = found[0].arms
    sure = [HEADINGS[name] for name, a in result.agreements.items() if a.p < 0.05]
    told = f"{_listed(sure)} would be by chance in under 5 % of random orders" if sure else "none is beyond chance"
    return (
        f"Rank correlations are over {arms} arms, with signs such that + is agreement with accuracy (lower alignment "
        f"and uniformity count as better): {told} (Kendall, p < 0.05, not corrected for {len(found)} figures). They "
        "tell of these arms on these data, no more."
    )


def _accuracy(result: BudgetResult, arm: ArmResult, measures: Sequence[str], spread: bool) -> list[str]:
    cells = [arm_name(arm.arm)]
    for measure in measures:
        values, ranking = arm.values.get(measure), result.rankings.get(measure)
        cells.append(_mean(values, spread))
        if ranking is None or arm.arm not in ranking.means or arm.arm == next(iter(ranking.means)):
            cells.append("" if values else "–")
        else:
            margin = "" if ranking.margin is None else f" ± {100 * ranking.margin:.1f}"
            cells.append(f"{_points(ranking, next(iter(ranking.means)), arm.arm)}{margin}")
    others = {"diverged": arm.diverged, "not finished": arm.missing}
    state = [f"{len(arm.seeds)}", *(f"{len(seeds)} {what}" for what, seeds in others.items() if seeds)]
    return [*cells, ", ".join(state)]


def _controls(arms: Sequence[ArmResult], measures: Sequence[str], spread: bool) -> list[list[str]]:
    """Untrained encoders and raw pixels, over all runs."""
    rows = []
    for name, columns in (("untrained", [a.untrained for a in arms]), ("raw pixels", [a.pixels for a in arms])):
        values = [[x for column in columns for x in column.get(measure, ())] for measure in measures]
        if any(values):
            rows.append([name, *(text for v in values for text in (_mean(v, spread), "")), ""])
    return rows


def _mean(values: Sequence[float] | None, spread: bool = False, digits: int = 3) -> str:
    """The mean, and the lowest and highest if they differ as shown."""
    if not values:
        return "–"
    mean, low, high = (
        f"{x:.{digits}f}".replace("-", "−") for x in (statistics.fmean(values), min(values), max(values))
    )
    return f"{mean} ({low} to {high})" if spread and low != high else mean


def _amount(axis: str, value: float | None) -> str:
    if value is None:
        return "–"
    return {"epoch": f"{value:.2f}", "seconds": f"{value / 60:.2f}"}.get(axis, f"{value:,.0f}")


def _there(arm: ArmResult) -> str:
    return "–" if arm.reached is None else f"{arm.reached['seeds']} of {len(arm.seeds)}"


def _step(arm: ArmResult) -> str:
    return "–" if arm.step_seconds is None else f"{1000 * arm.step_seconds:.0f}"


def _memory(arm: ArmResult) -> str:
    return "–" if arm.peak_memory is None else f"{arm.peak_memory / 2**20:,.0f}"


NOTES = (
    "Accuracies are means over seeds, with the lowest and highest in brackets, on held-out images that are the same "
    "for every arm; where the data bring none, each seed holds out its own. ± is the 95 % margin of all differences "
    "at once over seeds (Tukey, arms and seeds as a two-way layout, the same spread in every arm). It does not hold "
    "for other held-out images.",
    "Minutes are those of the training loop, with the looks of the monitor and without the final evaluation; steps are "
    "medians, and memory is the peak of the process with the images in it, all on this machine as it was. Views are "
    "those that pass the trained encoder; passes of averaged networks are not counted.",
)


def markdown(study: Study) -> str:
    """The study as a page of text that can be committed."""
    machine = study.about["machine"]
    where = ", ".join(f"{k} {machine[k]}" for k in ("processor", "cores", "accelerator", "python") if k in machine)
    lines = [
        f"# Comparison on {data_name(study)}",
        "",
        f"`{study.about['command']}`",
        "",
        f"{where}; frossl {study.about['frossl']}.",
    ]
    for result in study.results:
        lines += ["", f"## Budget {result.budget}", ""]
        lines += [f"**{conclude(result, m)}**" if m == result.measure else conclude(result, m) for m in result.rankings]
        lines += left_out(result)
        for heading, columns, rows in tables(result):
            lines += ["", f"### {heading}", "", _line(columns), _line(["---"] * len(columns)), *map(_line, rows)]
        note = agreement_note(result)
        lines += ["", note] if note else []
    return "\n".join([*lines, "", *NOTES, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def data_name(study: Study) -> str:
    """What the runs were on, in short."""
    return Path(study.about["runs"][0]["config"]["data"]).name


def show_comparison(console: Console, study: Study) -> None:
    """The tables and sentences of every budget."""
    for result in study.results:
        for heading, columns, rows in tables(result, spread=False)[:3] if any(a.seeds for a in result.arms) else []:
            title = f"{escape(heading)}, budget {result.budget}"
            table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE, pad_edge=False)
            for i, column in enumerate(columns):
                table.add_column(column, justify="right" if i else "left", no_wrap=i > 0)
            for row in rows:
                table.add_row(*map(escape, row))
            console.print(table)
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
