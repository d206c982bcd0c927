"""A comparison in sentences: in the terminal, as Markdown, and as a page."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from frossl.core.config import to_plain
from frossl.core.files import write_text
from frossl.evals import columns
from frossl.evals.ranking import Ranking
from frossl.report import comparison_figures
from frossl.report.comparison_notes import (
    further_seeds,
    left_out,
    listed,
    margin_notes,
    measured_on,
    notes,
    plan_notes,
    reading_notes,
    target_notes,
)
from frossl.report.comparison_tables import arm_name, points, tables, tuning_table
from frossl.report.controls import TO_BEAT, control_values, not_above
from frossl.report.page import render_page
from frossl.report.study import BudgetResult, Study, read_study
from frossl.report.table import for_terminal, markdown
from frossl.report.tables import settings
from frossl.report.terminal import duration
from frossl.runs.record import Record

AXES = (("images", "images"), ("epoch", "epochs"), ("views", "forward passes"), ("seconds", "time"))


def write_comparison(path: Path) -> Study:
    """Writes the results of the runs of a comparison so far.

    They go into ``comparison.json``, as tables to ``comparison.md``, as a page to ``comparison.html``.

    Raises:
        UserError: not a directory of a comparison.
    """
    study = read_study(path)
    results = {"results": to_plain(study.results)}
    write_text(path / "comparison.json", json.dumps(study.about | results, indent=2) + "\n")
    write_text(path / "comparison.md", as_markdown(study))
    write_text(path / "comparison.html", render_comparison(study))
    return study


def conclude(result: BudgetResult, measure: str) -> str:
    """One sentence on how the arms stand by ``measure``, no more than seeds and held-out images support."""
    ranking, by = result.rankings[measure], f"by {columns()[measure].title}"
    first, *others = ranking.means
    if not others:
        return f"Only {arm_name(first)} can be judged {by}: there is nothing to compare it with."
    if ranking.margin is None:
        lead = points(ranking, first, others[0])
        seed, further = further_seeds(result, measure)
        over = f"Over the one seed that all arms have ({seed})" if further else "With one seed"
        return (
            f"{over} no arm can be said to be ahead {by}; the highest value is that of {arm_name(first)}, "
            f"{lead} points above the next."
        )
    if not ranking.images:
        return f"No arm can be said to be ahead {by}: how far this score may be off for other images was not measured."
    behind = [name for name in others if ranking.apart(first, name)]
    if not behind:
        gap = f"{points(ranking, first, others[-1])} points, {_margin(ranking, first, others[-1])}"
        return f"The {len(ranking.means)} arms cannot be told apart {by}: they lie within {gap}."
    gap = f"{points(ranking, first, behind[0])} points, {_margin(ranking, first, behind[0])}"
    ahead = f"{arm_name(first)} is ahead of {arm_name(behind[0])} by {gap}"
    if behind[1:]:
        ahead += f"; of {listed(map(arm_name, behind[1:]))} by more"
    level = [arm_name(name) for name in ranking.means if name not in behind]
    return f"B{by[1:]}, {ahead}." if len(level) == 1 else f"{listed(level)} cannot be told apart {by}; {ahead}."


def _margin(ranking: Ranking, one: str, other: str) -> str:
    """The margin of a difference in points, and its parts."""
    margins = ranking.within(one, other), ranking.margin, ranking.over_images(one, other)
    within, seeds, images = (f"± {100 * (margin or 0.0):.1f}" for margin in margins)
    return f"{within} ({seeds} over {ranking.seeds} seeds and {images} over images)"


def beside_controls(result: BudgetResult, measure: str) -> list[str]:
    """A sentence on which arms are above the controls by ``measure``; none where that cannot be said."""
    beaten, said = [], []
    for control, name in TO_BEAT.items():
        behind = not_above(result.arms, measure, control)
        if behind is None:
            continue
        name += f" ({statistics.fmean(control_values(result.arms, control, measure)):.3f})"
        if not behind:
            beaten.append(name)
        elif len(behind) == len(result.rankings[measure].means):
            said.append(f"no arm is clearly above {name}")
        else:
            said.append(f"{listed(map(arm_name, behind))} {'are' if behind[1:] else 'is'} not clearly above {name}")
    if beaten:
        said.insert(0, f"every ranked arm is clearly above {listed(beaten)}")
    return [f"By {columns()[measure].title}, {'; '.join(said)}."] if said else []


def conclusions(result: BudgetResult, measure: str) -> str:
    """How the arms stand by ``measure``, among themselves and beside the controls."""
    return " ".join([conclude(result, measure), *beside_controls(result, measure)])


def headline(result: BudgetResult) -> tuple[str, str]:
    """Mood of the card and the conclusion in a few words; :func:`conclude` says why there is no ranking."""
    ranking = result.rankings.get(result.measure or "")
    if ranking is None:
        return "unknown", "Nothing to rank yet"
    if ranking.widest is None:
        return "unknown", "No ranking"
    first, *others = ranking.means
    level = 1 + sum(not ranking.apart(first, name) for name in others)
    if level == 1:
        return "good", f"{arm_name(first)} is ahead"
    if level == len(ranking.means):
        return "unknown", "No arm is ahead"
    return "mixed", f"{level} of {len(ranking.means)} arms share the lead"


def data_name(study: Study) -> str:
    """The last part of the path of the data."""
    return Path(study.about["runs"][0]["config"]["data"]).name


def as_markdown(study: Study) -> str:
    """The study as a page of text that can be committed."""
    machine = study.about["machine"]
    where = ", ".join(f"{k} {machine[k]}" for k in ("processor", "cores", "accelerator", "python") if k in machine)
    lines = [f"# Comparison on {data_name(study)}", "", f"`{study.about['command']}`", ""]
    lines += [f"{where}; frossl {study.about['frossl']}."]
    lines += markdown(tuned) if (tuned := tuning_table(study.about)) else []
    lines += [line for note in plan_notes(study) for line in ("", note)]
    for result in study.results:
        lines += ["", f"## Budget {result.budget}", ""]
        lines += [
            f"**{conclusions(result, m)}**" if m == result.measure else conclusions(result, m) for m in result.rankings
        ]
        lines += left_out(result)
        for table in tables(result):
            lines += markdown(table)
        lines += [line for note in notes(result) for line in ("", note)]
    return "\n".join([*lines, "", *reading_notes(study), ""])


def show_comparison(console: Console, study: Study) -> None:
    """Prints the tables and sentences of every budget."""
    if tuned := tuning_table(study.about):
        console.print(for_terminal(tuned))
    for note in plan_notes(study):
        console.print(escape(note), highlight=False)
    for result in study.results:
        for table in tables(result, brief=True)[:3] if any(a.seeds for a in result.arms) else []:
            console.print(for_terminal(replace(table, title=f"{table.title}, budget {result.budget}")))
        for measure in result.rankings:
            style = "bold" if measure == result.measure else ""
            console.print(escape(conclusions(result, measure)), style=style, highlight=False)
        for sentence in (*left_out(result), *margin_notes(result), *target_notes(result)):
            console.print(escape(sentence), highlight=False)
    if not any(result.rankings for result in study.results):
        console.print("No accuracy is known by which arms could be ranked.")


def render_comparison(study: Study) -> str:
    """The page of a study."""
    done = [t for t in study.trials if t.state == "done"]
    records: dict[str, Record] = {}
    for trial in done:
        if trial.record is not None:
            records.setdefault(arm_name(trial.arm), trial.record)
    seconds = sum(t.spent()["seconds"] for t in study.trials if t.record and t.record.train)
    machine = study.about["machine"]
    protocols = (p for r in records.values() if r.evaluation for p in r.evaluation.protocols.values())
    return render_page(
        "comparison.html.j2",
        kind="comparison",
        title=data_name(study),
        axes=AXES,
        budgets=[_budget(study, result) for result in study.results],
        summary=[
            f"{len(done)} of {len(study.trials)} runs",
            f"{duration(seconds)} of training",
            *(machine[name] for name in ("processor", "accelerator") if name in machine),
            f"frossl {study.about['frossl']}",
        ],
        tuned=tuning_table(study.about),
        plan_notes=plan_notes(study),
        trials=study.trials,
        settings=settings(records),
        differing=settings(records, differing=True),
        measured_on=measured_on(study),
        notes=reading_notes(study),
        command=study.about["command"],
        protocols=list(dict.fromkeys(protocols)),
    )


def _budget(study: Study, result: BudgetResult) -> dict[str, Any]:
    lines = comparison_figures.arm_lines(study)
    ranking = result.rankings.get(result.measure or "")
    mood, text = headline(result)
    return {
        "result": result,
        "mood": mood,
        "headline": text,
        "sentences": [*(conclusions(result, m) for m in result.rankings), *left_out(result)],
        "endings": comparison_figures.ending_figures(result, lines),
        "bars": ranking is not None and ranking.widest is not None,
        "curves": comparison_figures.curve_figures([t for t in study.trials if t.budget == result.budget], lines),
        "tables": tables(result),
        "notes": notes(result),
        "free": comparison_figures.label_free_figures(result, lines),
    }
