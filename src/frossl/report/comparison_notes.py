"""What a comparison says beside its results: what is left out, where margins and targets come from, how to read it."""

from __future__ import annotations

from collections.abc import Iterable

from frossl.evals import columns
from frossl.evals.ranking import spread_range
from frossl.report.comparison_tables import arm_name, tuning_notes
from frossl.report.study import PACE, BudgetResult, Study, rankable
from frossl.report.targets import WATCHED


def listed(parts: Iterable[str]) -> str:
    """Parts of a sentence, the last after "and".

    >>> listed(["a"]), listed("abc")
    ('a', 'a, b and c')
    """
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last


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
    """Sentences on seeds and arms that are not ranked, on missing runs, and on times that cannot be compared."""
    notes = seed_notes(result)
    if result.mixed:
        machines = "; ".join(result.machines)
        notes.append(f"Minutes of several machines are not worth the same, so that no arm is ranked: {machines}.")
    notes += pace_notes(result)
    for arm in result.arms:
        if arm.diverged:
            seeds = f"{len(arm.diverged)} of {len(arm.seeds) + len(arm.diverged)} seeds"
            notes.append(f"{arm_name(arm.arm)} diverged with {seeds} and is not ranked.")
    missing = sum(len(arm.missing) for arm in result.arms)
    planned = missing + sum(len(arm.seeds) + len(arm.diverged) for arm in result.arms)
    return [*notes, f"{missing} of {planned} runs with {result.budget} are not finished."] if missing else notes


def further_seeds(result: BudgetResult, measure: str) -> tuple[str, dict[str, str]]:
    """The seeds that all ranked arms have, and by arm those that not all have, in words."""
    if measure not in result.rankings:
        return "", {}
    arms, shared = rankable(result.arms, measure)
    found = {arm.arm: listed(map(str, more)) for arm in arms if (more := sorted(set(arm.seeds) - set(shared)))}
    return listed(map(str, shared)) if shared else "", found


def seed_notes(result: BudgetResult) -> list[str]:
    """A sentence on the seeds that are compared, if some arm has others."""
    shared, further = further_seeds(result, result.measure or "")
    if not further:
        return []
    others = listed(f"{arm_name(arm)} with {seeds}" for arm, seeds in further.items())
    return [
        f"The order of arms, their differences and the means in the first table are over the seeds that all of them "
        f"have ({shared}). There are further runs of {others}; the other tables count these too."
    ]


def pace_notes(result: BudgetResult) -> list[str]:
    """Sentences on runs that were slowed: one for each arm, or one in all where runs do not have equal minutes."""
    arms = [arm for arm in result.arms if arm.off_pace]
    if arms and not result.timed:
        names = listed(arm_name(arm.arm) for arm in arms)
        return [
            f"A step took over {100 * PACE:.0f} % more or less time with some seeds of {names}: do not compare times."
        ]
    notes = []
    for arm in arms:
        offs = listed(f"{100 * abs(x):.0f} % {'more' if x > 0 else 'less'} time with seed {s}" for s, x in arm.off_pace)
        notes.append(
            f"{arm_name(arm.arm)}: a step took {offs} than with its other seeds. Something else used the machine: "
            "times are not to be compared."
        )
    return notes


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
        notes.append(f"Runs were not monitored alike: --monitor-every was {listed(target.every)}.")
    return notes


def agreement_note(result: BudgetResult) -> list[str]:
    """A sentence on how far the rank correlations may be trusted, if there are any."""
    found = {columns()[name]: agreement for name, agreement in result.agreements.items()}
    if not found:
        return []
    sure = [column.heading for column, a in found.items() if a.p < 0.05]
    chance = f"{listed(sure)} would be by chance in under 5 % of random orders" if sure else "none is beyond chance"
    lower = [column.title for column in found if column.better == "lower"]
    sign = f" (lower is better for {listed(lower)})" if lower else ""
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
    if (images := measured_on(study)) != "held-out images":
        notes.append(f"All runs were measured on {images}: this is to choose options, not a result.")
    return notes


def measured_on(study: Study) -> str:
    """What the images are on which all runs were measured."""
    validation = any(run.get("validation") for run in study.about["runs"])
    return "training images kept aside" if validation else "held-out images"


def reading_notes(study: Study) -> list[str]:
    """How to read the numbers of all budgets."""
    images = measured_on(study)
    same = "that are the same for every arm; where the data bring none, each seed holds out its own"
    same = "the same for every arm and seed" if images != "held-out images" else same
    return [
        f"Values are means over seeds with their 95 % interval (Student's t, one spread for each arm), on {images} "
        f"{same}. Of one seed there is no interval.",
        "Margins of differences are 95 % margins of all differences at once. Over seeds: Tukey, arms and seeds as a "
        f"two-way layout, one spread for all arms. Over {images}: paired by image where answers were kept. An arm is "
        "ahead where a difference is larger than both margins together, the root of seeds² + images². It is clearly "
        "above a control by the same rule, with the control as one more arm and not paired by image (with one seed, by "
        "the margin over images alone). Other data, and other settings, are in neither margin.",
        "Minutes are those of the training loop, with the evaluations of the monitor and without the final one; steps "
        "are medians, and memory is the peak of the process with the images in it, all on this machine as it was. "
        "Views are those that pass the trained encoder; passes of averaged networks are not counted.",
    ]
