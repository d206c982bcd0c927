"""A comparison as files: results as JSON, tables as Markdown, one HTML page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from frossl.core.config import to_plain
from frossl.core.files import write_text
from frossl.report import comparison_figures
from frossl.report.comparison import NOTES, as_markdown, conclude, data_name, left_out, notes, plan_notes, run_time
from frossl.report.comparison_tables import arm_name, tables, tuning_table
from frossl.report.figures import Figure
from frossl.report.page import render_page
from frossl.report.study import BudgetResult, Study, read_study
from frossl.report.tables import settings
from frossl.runs.record import Record

AXES = (("images", "images"), ("epoch", "epochs"), ("views", "forward passes"), ("seconds", "time"))


def write_comparison(path: Path) -> Study:
    """Writes what the runs of a comparison come to, as far as they are.

    The results go into ``comparison.json``, as tables to ``comparison.md``, as a page to ``comparison.html``.

    Raises:
        UserError: not a directory of a comparison.
    """
    study = read_study(path)
    results = {"results": to_plain(study.results)}
    write_text(path / "comparison.json", json.dumps(study.about | results, indent=2) + "\n")
    write_text(path / "comparison.md", as_markdown(study))
    write_text(path / "comparison.html", render_comparison(study))
    return study


def render_comparison(study: Study) -> str:
    """The page of a study."""
    lines = comparison_figures.looks(study)
    done = [t for t in study.trials if t.state == "done"]
    records: dict[str, Record] = {}
    for trial in done:
        if trial.record is not None:
            records.setdefault(arm_name(trial.arm), trial.record)
    protocols = (p for r in records.values() if r.evaluation for p in r.evaluation.protocols.values())
    return render_page(
        "comparison.html.j2",
        kind="comparison",
        title=data_name(study),
        axes=AXES,
        budgets=[_budget(study, result, lines) for result in study.results],
        summary=[f"{len(done)} of {len(study.trials)} runs", f"{run_time(study)} of training", *_where(study)],
        tuned=tuning_table(study.about),
        plan_notes=plan_notes(study),
        trials=study.trials,
        settings=settings(records),
        differing=settings(records, differing=True),
        notes=NOTES,
        command=study.about["command"],
        protocols=list(dict.fromkeys(protocols)),
    )


def _budget(study: Study, result: BudgetResult, lines: dict[str, Figure]) -> dict[str, Any]:
    mood, headline = _headline(result)
    ranking = result.rankings.get(result.measure or "")
    return {
        "result": result,
        "mood": mood,
        "headline": headline,
        "sentences": [*(conclude(result, m) for m in result.rankings), *left_out(result)],
        "endings": comparison_figures.ending_figures(result, lines),
        "bars": ranking is not None and ranking.widest is not None,
        "curves": comparison_figures.curve_figures([t for t in study.trials if t.budget == result.budget], lines),
        "tables": tables(result),
        "notes": notes(result),
        "free": comparison_figures.label_free_figures(result, lines),
    }


def _headline(result: BudgetResult) -> tuple[str, str]:
    """Mood of the card and the conclusion in a few words."""
    if result.measure is None:
        return "unknown", "Nothing to rank yet"
    ranking = result.rankings[result.measure]
    first, *others = ranking.means
    if not others:
        return "unknown", "Only one arm"
    if ranking.margin is None:
        return "unknown", "One seed: no ranking"
    if not ranking.images:
        return "unknown", "No margin over images: no ranking"
    level = [name for name in others if not ranking.apart(first, name)]
    if not level:
        return "good", f"{arm_name(first)} is ahead"
    if len(level) == len(others):
        return "unknown", "No arm is ahead"
    return "mixed", f"{len(level) + 1} of {len(others) + 1} arms share the lead"


def _where(study: Study) -> list[str]:
    machine = study.about["machine"]
    return [machine[key] for key in ("processor", "accelerator") if key in machine] + [
        f"frossl {study.about['frossl']}"
    ]
