"""A comparison in words and tables, in the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from frossl.evals import columns
from frossl.evals.ranking import Ranking, spread_range
from frossl.report.comparison_tables import arm_name, points, tables, tuning_notes, tuning_table
from frossl.report.study import BudgetResult, Study
from frossl.report.table import for_terminal, markdown
from frossl.report.targets import WATCHED
from frossl.report.terminal import duration


def conclude(result: BudgetResult, measure: str) -> str:
    """One sentence on how the arms stand by ``measure``, no more than seeds and held-out images support."""
    ranking = result.rankings[measure]
    names = list(ranking.means)
    by = f"by {columns()[measure].title}"
    if len(names) == 1:
        return f"Only {arm_name(names[0])} can be judged {by}: there is nothing to compare it with."
    if ranking.margin is None:
        return (
            f"With one seed no arm can be said to be ahead {by}; the highest value is that of {arm_name(names[0])}, "
            f"{points(ranking, names[0], names[1])} points above the next."
        )
    if not ranking.images:
        return f"No arm can be said to be ahead {by}: how far this score may be off for other images was not measured."
    behind = [name for name in names if ranking.apart(names[0], name)]
    level = [name for name in names if name not in behind]
    if not behind:
        gap = points(ranking, names[0], names[-1])
        several = "The two" if len(names) == 2 else f"The {len(names)}"
        off = margin_words(ranking, names[0], names[-1])
        return f"{several} arms cannot be told apart {by}: they lie within {gap} points, {off}."
    gap = f"{arm_name(behind[0])} by {points(ranking, names[0], behind[0])} points"
    others = f"; of {_listed([arm_name(name) for name in behind[1:]])} by more" if behind[1:] else ""
    ahead = f"{arm_name(names[0])} is ahead of {gap}, {margin_words(ranking, names[0], behind[0])}{others}."
    if len(level) == 1:
        return f"B{by[1:]}, {ahead}"
    return f"{_listed([arm_name(name) for name in level])} cannot be told apart {by}; {ahead}"


def margin_words(ranking: Ranking, one: str, other: str) -> str:
    """The margin of a difference in points, and its parts."""
    within, seeds, images = (
        f"± {100 * (margin or 0.0):.1f}"
        for margin in (ranking.within(one, other), ranking.margin, ranking.over_images(one, other))
    )
    return f"{within} ({seeds} over {ranking.seeds} seeds and {images} over images)"


def margin_notes(result: BudgetResult) -> list[str]:
    """Sentences on what the margins of the headline come from."""
    ranking = result.rankings.get(result.measure or "")
    if ranking is None or ranking.margin is None:
        return []
    low, high = spread_range(ranking.freedom)
    pooled = f", pooled over {len(ranking.means)} arms" if len(ranking.means) > 2 else ""
    said = (
        f"The spread over seeds was measured with {ranking.seeds} seeds{pooled}: {ranking.freedom} "
        f"degree{'s' * (ranking.freedom > 1)} of freedom. The true one lies between {low:.1f} and {high:.1f} times it "
        "(95 %), which the margin allows for if all arms spread alike."
    )
    if ranking.paired:
        return [said]
    return [
        f"{said} Margins over images are not paired, as single answers were not kept or the score is no share of them: "
        "they are too wide as far as arms find the same images hard."
    ]


def left_out(result: BudgetResult) -> list[str]:
    """Sentences on arms that the ranking does not tell of or not whole, and on times that cannot be compared."""
    said = []
    if result.mixed:
        places = "; ".join(result.machines)
        said.append(f"Minutes of several machines are not worth the same, so that no arm is ranked: {places}.")
    for arm in result.arms:
        for seed, off in arm.off_pace:
            said.append(
                f"{arm_name(arm.arm)}, seed {seed}: a step took {100 * abs(off):.0f} % {'more' if off > 0 else 'less'} "
                "time than with its other seeds. Something else used the machine: times are not to be compared."
            )
        if arm.diverged:
            over = len(arm.seeds) + len(arm.diverged)
            said.append(f"{arm_name(arm.arm)} diverged with {len(arm.diverged)} of {over} seeds and is not ranked.")
    missing = sum(len(arm.missing) for arm in result.arms)
    planned = sum(len(arm.seeds) + len(arm.diverged) + len(arm.missing) for arm in result.arms)
    return [*said, f"{missing} of {planned} runs with {result.budget} are not finished."] if missing else said


def target_notes(result: BudgetResult) -> list[str]:
    """Sentences on where the target comes from and how far what it took to get there is known."""
    target, what = result.target, WATCHED[result.target.metric]
    pixels = "" if target.pixels is None else f"{target.pixels:.3f}"
    watched = [arm.reached for arm in result.arms if arm.reached is not None]
    if target.value is None:
        return [f"No run was seen above raw pixels ({pixels}) by the monitor's {what}: no target."] if pixels else []
    if target.given:
        said = "The target was given."
        said += f" It does not lie above raw pixels ({pixels})." * bool(pixels and target.value <= (target.pixels or 0))
    else:
        above = f" that got above raw pixels ({pixels})" if pixels else "; what raw pixels have was not measured"
        said = f"The target is the best of the worst run{above}."
    notes = [said] if watched else [f"{said} The monitor has looked at no run by its {what}."]
    if bounds := {reached.bound for reached in watched} - {""}:
        words = {
            "before": "“before”: a seed was there at the first look already",
            "after": "“after”: a seed was not there at the last look",
            "unknown": "“unknown”: both",
        }
        told = "; ".join(text for bound, text in words.items() if bound in bounds)
        notes.append(f"{told}. Such a seed counts as at that look, which bounds the mean.")
    if len(target.every) > 1:
        notes.append(f"Not all were watched alike: --monitor-every was {_listed(target.every)}.")
    return notes


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


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


def notes(result: BudgetResult) -> list[str]:
    """What is to be said below the tables."""
    agreement = agreement_note(result)
    return [*margin_notes(result), *target_notes(result), *([agreement] if agreement else [])]


NOTES = (
    "Values are means over seeds with their 95 % interval (Student's t, one spread for each arm), on held-out images "
    "that are the same for every arm; where the data bring none, each seed holds out its own. Of one seed there is no "
    "interval.",
    "Margins of differences are 95 % margins of all differences at once. Over seeds: Tukey, arms and seeds as a "
    "two-way layout, one spread for all arms. Over held-out images: paired by image where answers were kept. An arm is "
    "ahead where a difference is larger than the root of the sum of their squares. Other data, and other settings, are "
    "in neither.",
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


def plan_notes(study: Study) -> list[str]:
    """Sentences on what holds for all budgets."""
    notes = tuning_notes(study.about)
    for recipe, method in study.about.get("found_for", {}).items():
        notes.append(f"Optimiser and views of the recipe {recipe} were found for {method}; all arms have them.")
    if any(run.get("validation") for run in study.about["runs"]):
        notes.append("All runs were measured on training images kept aside: this is to choose options, not a result.")
    return notes


def data_name(study: Study) -> str:
    """What the runs were on, in short."""
    return Path(study.about["runs"][0]["config"]["data"]).name


def show_comparison(console: Console, study: Study) -> None:
    """The tables and sentences of every budget."""
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


def run_time(study: Study) -> str:
    """Time in the loops of all runs."""
    return duration(sum(t.spent()["seconds"] for t in study.trials if t.record and t.record.train))
