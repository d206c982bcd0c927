"""The results of a comparison: values by budget and arm, with rankings and agreements."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

from frossl.core.config import from_plain
from frossl.core.length import Length
from frossl.core.types import UserError
from frossl.evals import label_free, scores
from frossl.evals.guess import GUESSES
from frossl.evals.interval import Z, unpack_answers
from frossl.evals.ranking import Agreement, Ranking, agreement, paired_error, rank
from frossl.evals.suite import START
from frossl.report.arms import Arm
from frossl.report.tables import time_table
from frossl.report.targets import Reached, Target, Watched, curve_table, find_target, reach
from frossl.report.trial import Trial, read_trial

T = TypeVar("T")
PACE = 0.15
"""Largest relative difference of the step time of a run from that of another seed that is not reported."""


def measures() -> list[str]:
    """Scores that arms are ranked by, the first that was measured for headlines: kNN if there is no other.

    Balanced accuracies, which are there where classes are uneven only, come before others.
    """
    balanced = [name for name, column in scores().items() if column.score == "balanced accuracy"]
    return sorted(scores(), key=lambda name: (name.startswith("knn"), name not in balanced))


@dataclass(frozen=True)
class ArmResult:
    """An arm under a budget: ``values`` of its encoders and controls by seed, and means over seeds of what it cost.

    ``answers`` are those of the encoders to the held-out images, by accuracy and seed
    (:func:`frossl.evals.interval.unpack_answers`), of accuracies that every seed has them of. ``off_pace`` are seeds
    whose median step took more than :data:`PACE` longer or shorter than that of any other seed, and how much, as a
    share of the nearest. ``reached`` is None if that was not watched, as of a method that learns nothing; ``curves``
    are what the monitor saw.
    """

    arm: str
    views: int | None
    seeds: list[int]
    diverged: list[int]
    missing: list[int]
    values: dict[str, list[float]]
    answers: dict[str, list[str]]
    held_out: list[int]
    untrained: dict[str, list[float]]
    start: dict[str, list[float]]
    pixels: dict[str, list[float]]
    guess: dict[str, list[float]]
    spent: dict[str, float]
    step_seconds: float | None
    off_pace: list[tuple[int, float]]
    peak_memory: int | None
    reached: Reached | None
    curves: list[dict[str, Any]]


@dataclass(frozen=True)
class BudgetResult:
    """All arms under one budget. Rankings are by measure, agreements by figure that needs no labels.

    ``machines`` are those that its runs were done on, as far as speed goes. Under a budget in minutes there are no
    rankings if they are several.
    """

    budget: str
    arms: list[ArmResult]
    machines: list[str]
    target: Target
    held_out: int
    rankings: dict[str, Ranking]
    agreements: dict[str, Agreement]

    @property
    def timed(self) -> bool:
        """Whether the budget is in minutes."""
        return Length.parse(self.budget).unit == "min"

    @property
    def mixed(self) -> bool:
        """Whether runs have as many minutes of machines that are not alike."""
        return len(self.machines) > 1 and self.timed

    @property
    def measure(self) -> str | None:
        """The accuracy of the headline."""
        return next(iter(self.rankings), None)


@dataclass(frozen=True)
class Study:
    """The directory of a comparison; ``about`` is its ``comparison.json``."""

    path: Path
    about: dict[str, Any]
    trials: list[Trial]
    results: list[BudgetResult]


def read_study(path: Path) -> Study:
    """Reads the plan and its runs and works out the results; without any run, those that were written last hold.

    The target is that of the plan; if it has none, the best that the worst run got to above raw pixels.

    Raises:
        UserError: not a directory of a comparison, or a run in it is damaged.
    """
    plan = path / "comparison.json"
    if not plan.exists():
        raise UserError(f"{path} is not a comparison: it has no comparison.json")
    try:
        about = json.loads(plan.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{plan} is damaged: {error}") from None
    trials = [read_trial(path, run) for run in about["runs"]]
    if about.get("results") and not any((path / run["name"]).exists() for run in about["runs"]):
        try:
            return Study(path, about, trials, [from_plain(BudgetResult, result) for result in about["results"]])
        except UserError as error:
            raise UserError(f"{plan}: its runs are gone, and its results cannot be read: {error}") from None
    metric, value = about.get("target_metric", "knn"), about.get("target")
    results = []
    for budget in dict.fromkeys(t.budget for t in trials):
        results.append(_budget_result(budget, [t for t in trials if t.budget == budget], metric, value))
    return Study(path, about, trials, results)


def _budget_result(budget: str, trials: Sequence[Trial], metric: Watched, value: float | None) -> BudgetResult:
    done = [t for t in trials if t.state == "done"]
    target = find_target(done, metric, value)
    names = dict.fromkeys(t.arm for t in trials)
    arms = [_arm_result(name, [t for t in trials if t.arm == name], target) for name in names]
    machines = sorted({machine for t in done for machine in t.machines()})
    rankings = {measure: r for measure in measures() if (r := rank_arms(arms, measure))}
    held_out = next((t.record.evaluation.held_out for t in done if t.record and t.record.evaluation), 0)
    agreements, means = {}, next(iter(rankings.values())).means if rankings else {}
    for name, column in label_free().items():
        sign = -1 if column.better == "lower" else 1
        have = [arm for arm in arms if arm.arm in means and name in arm.values]
        figures = [sign * statistics.fmean(arm.values[name]) for arm in have]
        if found := agreement(figures, [means[arm.arm] for arm in have]):
            agreements[name] = found
    result = BudgetResult(budget, arms, machines, target, held_out, rankings, agreements)
    return replace(result, rankings={}, agreements={}) if result.mixed else result


def rankable(arms: Sequence[ArmResult], measure: str) -> tuple[list[ArmResult], list[int]]:
    """Arms that have ``measure`` and none of whose seeds diverged, and the seeds that all of these have."""
    ranked = [arm for arm in arms if measure in arm.values and not arm.diverged]
    return ranked, sorted(set.intersection(*(set(arm.seeds) for arm in ranked))) if ranked else []


def rank_arms(arms: Sequence[ArmResult], measure: str) -> Ranking | None:
    """The arms that are :func:`rankable` by ``measure``, over the seeds that they share; None without any."""
    ranked, seeds = rankable(arms, measure)
    if not seeds:
        return None
    values = {arm.arm: at_seeds(arm, arm.values[measure], seeds) for arm in ranked}
    return rank(values, *image_errors(ranked, measure, seeds))


def at_seeds(arm: ArmResult, values: Sequence[T], seeds: Sequence[int]) -> list[T]:
    """Those of ``values``, one for each seed of ``arm``, that are of ``seeds``."""
    return [values[arm.seeds.index(seed)] for seed in seeds]


def image_errors(
    arms: Sequence[ArmResult], measure: str, seeds: Sequence[int]
) -> tuple[dict[str, dict[str, float]], bool]:
    """Standard errors over held-out images of differences of arms, and whether they are paired.

    They are paired if the answers of all runs were kept. Otherwise each arm has the error of its own intervals, which
    is too large as far as arms find the same images hard; empty if a score has no interval either.
    """
    found: dict[str, dict[str, float]] = {arm.arm: {} for arm in arms}
    paired = all(measure in arm.answers for arm in arms)
    kept, errors = {}, {}
    for arm in arms:
        at = [arm.seeds.index(seed) for seed in seeds]
        if paired:
            kept[arm.arm] = [unpack_answers(arm.answers[measure][i], arm.held_out[i]) for i in at]
            continue
        of_seed = [Arm("", "pretrained", {k: v[i] for k, v in arm.values.items()}, arm.held_out[i]) for i in at]
        halves = [half for one in of_seed if (half := one.margin(measure)) is not None]
        if len(halves) < len(at):
            return {}, False
        errors[arm.arm] = statistics.fmean(halves) / Z
    for one, other in combinations(found, 2):
        error = paired_error(kept[one], kept[other]) if paired else math.hypot(errors[one], errors[other])
        found[one][other] = found[other][one] = error
    return found, paired


def _arm_result(name: str, trials: Sequence[Trial], target: Target) -> ArmResult:
    done = [t for t in trials if t.state == "done"]
    records = [t.record for t in done if t.record is not None]
    evaluations = [r.evaluation for r in records if r.evaluation is not None]
    arms = [evaluation.shown() for evaluation in evaluations]
    steps = {t.seed: table["step"] for t in done if t.record and (table := time_table(t.record))}
    spent = _columns([t.spent() for t in done if t.record and t.record.train])

    def control(*names: str) -> dict[str, list[float]]:
        return _columns([of[name] for of in arms for name in names if name in of])

    return ArmResult(
        arm=name,
        views=records[0].views if records else None,
        seeds=[t.seed for t in done],
        diverged=[t.seed for t in trials if t.state == "diverged"],
        missing=[t.seed for t in trials if t.state == "unfinished"],
        values=control("pretrained"),
        answers=_columns([e.answers.get("pretrained", {}) for e in evaluations]),
        held_out=[e.held_out for e in evaluations],
        untrained=control("untrained"),
        start=control(START),
        pixels=control("raw pixels"),
        guess=control(*GUESSES.values()),
        spent={name: statistics.fmean(values) for name, values in spent.items()},
        step_seconds=statistics.median(steps.values()) if steps else None,
        off_pace=off_pace(steps),
        peak_memory=max((m for t in done if (m := t.outcome.get("peak_memory"))), default=None),
        reached=reach(done, target),
        curves=[table for t in trials if (table := curve_table(t))["step"]],
    )


def off_pace(steps: dict[int, float]) -> list[tuple[int, float]]:
    """Seeds whose step is more than :data:`PACE` off that of every other, and how far off the nearest.

    >>> off_pace({0: 1.0, 1: 1.1, 2: 1.65}), off_pace({0: 1.0, 1: 1.5})
    ([(2, 0.5)], [(0, -0.33), (1, 0.5)])
    """
    found = []
    for seed, step in steps.items():
        off = min((step / other - 1 for of, other in steps.items() if of != seed), key=abs, default=0.0)
        if abs(off) > PACE:
            found.append((seed, round(off, 2)))
    return found


def _columns(rows: Sequence[dict[str, T]]) -> dict[str, list[T]]:
    """Values by name, of the names that every row has."""
    names = [name for name in rows[0] if all(name in row for row in rows)] if rows else []
    return {name: [row[name] for row in rows] for name in names}
