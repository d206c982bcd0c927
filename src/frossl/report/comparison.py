"""A comparison in sentences: in the terminal, as Markdown, and as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from frossl.core.config import to_plain
from frossl.core.files import write_text
from frossl.evals import columns
from frossl.evals.ranking import Ranking, spread_range
from frossl.report import comparison_figures
from frossl.report.comparison_tables import arm_name, points, tables, tuning_notes, tuning_table
from frossl.report.page import render_page
from frossl.report.study import BudgetResult, Study, read_study
from frossl.report.table import for_terminal, markdown
from frossl.report.tables import settings
from frossl.report.targets import WATCHED
from frossl.report.terminal import duration
from frossl.runs.record import Record

AXES = (("images", "images"), ("epoch", "epochs"), ("views", "forward passes"), ("seconds", "time"))
NOTES = (
    "Values are means over seeds with their 95 % interval (Student's t, one spread for each arm), on held-out images "
    "that are the same for every arm; where the data bring none, each seed holds out its own. Of one seed there is no "
    "interval.",
    "Margins of differences are 95 % margins of all differences at once. Over seeds: Tukey, arms and seeds as a "
    "two-way layout, one spread for all arms. Over held-out images: paired by image where answers were kept. An arm is "
    "ahead where a difference is larger than the root of the sum of their squares. Other data, and other settings, are "
    "in neither.",
    "Minutes are those of the training loop, with the evaluations of the monitor and without the final one; steps are "
    "medians, and memory is the peak of the process with the images in it, all on this machine as it was. Views are "
    "those that pass the trained encoder; passes of averaged networks are not counted.",
)


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
        return (
            f"With one seed no arm can be said to be ahead {by}; the highest value is that of {arm_name(first)}, "
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
        ahead += f"; of {_listed(map(arm_name, behind[1:]))} by more"
    level = [arm_name(name) for name in ranking.means if name not in behind]
    return f"B{by[1:]}, {ahead}." if len(level) == 1 else f"{_listed(level)} cannot be told apart {by}; {ahead}."


def _margin(ranking: Ranking, one: str, other: str) -> str:
    """The margin of a difference in points, and its parts."""
    margins = ranking.within(one, other), ranking.margin, ranking.over_images(one, other)
    within, seeds, images = (f"± {100 * (margin or 0.0):.1f}" for margin in margins)
    return f"{within} ({seeds} over {ranking.seeds} seeds and {images} over images)"


def _listed(parts: Sequence[str] | map[str]) -> str:
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last


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


def margin_notes(result: BudgetResult) -> list[str]:
    """Sentences on what the margins of the headline come from."""
    ranking = result.rankings.get(result.measure or "")
    if ranking is None or ranking.margin is None:
        return []
    low, high = spread_range(ranking.freedom)
    notes = [
        f"The spread over seeds was measured with {ranking.seeds} seeds of {len(ranking.means)} arms: "
        f"{ranking.freedom} degree{'s' * (ranking.freedom > 1)} of freedom. The true one lies between {low:.1f} and "
        f"{high:.1f} times it (95 %), which the margin allows for if all arms spread alike."
    ]
    if not ranking.paired:
        notes.append(
            "Margins over images are not paired, as answers to single images were not kept or the score is no share of "
            "them: they are too wide as far as arms find the same images hard."
        )
    return [" ".join(notes)]


def left_out(result: BudgetResult) -> list[str]:
    """Sentences on arms that are not ranked, on runs that are missing, and on times that cannot be compared."""
    notes = []
    if result.mixed:
        machines = "; ".join(result.machines)
        notes.append(f"Minutes of several machines are not worth the same, so that no arm is ranked: {machines}.")
    for arm in result.arms:
        for seed, off in arm.off_pace:
            notes.append(
                f"{arm_name(arm.arm)}, seed {seed}: a step took {100 * abs(off):.0f} % {'more' if off > 0 else 'less'} "
                "time than with its other seeds. Something else used the machine: times are not to be compared."
            )
        if arm.diverged:
            seeds = f"{len(arm.diverged)} of {len(arm.seeds) + len(arm.diverged)} seeds"
            notes.append(f"{arm_name(arm.arm)} diverged with {seeds} and is not ranked.")
    missing = sum(len(arm.missing) for arm in result.arms)
    planned = missing + sum(len(arm.seeds) + len(arm.diverged) for arm in result.arms)
    return [*notes, f"{missing} of {planned} runs with {result.budget} are not finished."] if missing else notes


def target_notes(result: BudgetResult) -> list[str]:
    """Sentences on where the target comes from and how exactly the way to it is known."""
    target, metric = result.target, WATCHED[result.target.metric]
    pixels = None if target.pixels is None else f"raw pixels ({target.pixels:.3f})"
    if target.value is None:
        return [f"No run was seen above {pixels} by the monitor's {metric}: no target."] if pixels else []
    if not target.given:
        above = f" that got above {pixels}" if pixels else "; the score of raw pixels was not measured"
        notes = [f"The target is the best of the worst run{above}."]
    elif pixels and target.value <= (target.pixels or 0):
        notes = [f"The target was given. It does not lie above {pixels}."]
    else:
        notes = ["The target was given."]
    reached = [arm.reached for arm in result.arms if arm.reached is not None]
    if not reached:
        notes.append(f"The monitor measured no {metric} of any run.")
    if any(arm.bound for arm in reached):
        notes.append(
            "“before”: a seed had reached it when the monitor first looked; “after”: a seed had not when it last "
            "looked; “unknown”: both. Such a seed counts as at that evaluation, which bounds the mean."
        )
    if len(target.every) > 1:
        notes.append(f"Runs were not monitored alike: --monitor-every was {_listed(target.every)}.")
    return notes


def agreement_note(result: BudgetResult) -> list[str]:
    """A sentence on how far the rank correlations may be trusted, if there are any."""
    found = {columns()[name]: agreement for name, agreement in result.agreements.items()}
    if not found:
        return []
    sure = [column.heading for column, a in found.items() if a.p < 0.05]
    chance = f"{_listed(sure)} would be by chance in under 5 % of random orders" if sure else "none is beyond chance"
    lower = [column.title for column in found if column.better == "lower"]
    sign = f" (lower is better for {_listed(lower)})" if lower else ""
    return [
        f"Rank correlations are over {next(iter(found.values())).arms} arms; + is agreement with accuracy{sign}: "
        f"{chance} (Kendall, p < 0.05, not corrected for {len(found)} figures). They hold for these arms on these data."
    ]


def notes(result: BudgetResult) -> list[str]:
    """The sentences below the tables."""
    return [*margin_notes(result), *target_notes(result), *agreement_note(result)]


def plan_notes(study: Study) -> list[str]:
    """Sentences on what holds for all budgets."""
    notes = tuning_notes(study.about)
    for recipe, method in study.about.get("found_for", {}).items():
        notes.append(f"Optimiser and views of the recipe {recipe} were found for {method}; all arms have them.")
    if any(run.get("validation") for run in study.about["runs"]):
        notes.append("All runs were measured on training images kept aside: this is to choose options, not a result.")
    return notes


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
        lines += [f"**{conclude(result, m)}**" if m == result.measure else conclude(result, m) for m in result.rankings]
        lines += left_out(result)
        for table in tables(result):
            lines += markdown(table)
        lines += [line for note in notes(result) for line in ("", note)]
    return "\n".join([*lines, "", *NOTES, ""])


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
            console.print(escape(conclude(result, measure)), style=style, highlight=False)
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
        notes=NOTES,
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
        "sentences": [*(conclude(result, m) for m in result.rankings), *left_out(result)],
        "endings": comparison_figures.ending_figures(result, lines),
        "bars": ranking is not None and ranking.widest is not None,
        "curves": comparison_figures.curve_figures([t for t in study.trials if t.budget == result.budget], lines),
        "tables": tables(result),
        "notes": notes(result),
        "free": comparison_figures.label_free_figures(result, lines),
    }
