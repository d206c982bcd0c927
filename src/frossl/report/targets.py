"""What it took arms to reach a target, as far as the monitor can tell, which looks now and then."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from frossl.evals.ranking import first_reached, half_interval
from frossl.report.trial import AXES, Trial

Watched = Literal["knn", "probe", "ridge"]
WATCHED: dict[Watched, str] = {"knn": "kNN", "probe": "online probe", "ridge": "ridge probe"}
"""Accuracies of the monitor that a target may be of."""
ALIKE: dict[Watched, tuple[str, ...]] = {"knn": ("knn",), "probe": ("linear", "ridge"), "ridge": ("ridge", "linear")}
"""Scores of raw pixels that it lies above unless told otherwise, the first that was measured."""


@dataclass(frozen=True)
class Target:
    """``value`` of ``metric`` while training; None where no run got above ``pixels``, the score of raw pixels if known.

    It was ``given`` by who asked, or is the best value of the worst run above pixels. ``every`` is how often the
    monitor looked.
    """

    metric: Watched
    value: float | None
    given: bool
    pixels: float | None
    every: list[str]


@dataclass(frozen=True)
class Reached:
    """How many seeds of those ``watched`` got to a target, ``early`` ones before the first look.

    ``means`` over seeds by axis: exact where ``bound`` is empty, with half the 95 % interval over several seeds as
    ``margins``. Where it is "before" some seeds were early and count as at their first look; where "after" some did not
    get there and count as at their last; where "unknown" there are both.
    """

    watched: int
    seeds: int
    early: int
    bound: Literal["", "before", "after", "unknown"]
    means: dict[str, float]
    margins: dict[str, float] = field(default_factory=dict)


def find_target(trials: Sequence[Trial], metric: Watched, value: float | None) -> Target:
    """The target of the runs of a budget that are done; without a ``value`` given so that what got above pixels is."""
    pixels = max((score for t in trials if (score := _pixels(t, metric)) is not None), default=None)
    every = sorted({t.record.config.get("monitor_every", "") for t in trials if t.record and t.record.monitor})
    best = [max(values) for t in trials if (values := t.curve(metric)[1])]
    above = [value for value in best if pixels is None or value > pixels]
    return Target(metric, min(above, default=None) if value is None else value, value is not None, pixels, every)


def _pixels(trial: Trial, metric: Watched) -> float | None:
    evaluation = trial.record and trial.record.evaluation
    scores = evaluation.arms.get("raw pixels", {}) if evaluation else {}
    return next((scores[name] for name in ALIKE[metric] if name in scores), None)


def reach(trials: Sequence[Trial], target: Target) -> Reached | None:
    """What it took the seeds of an arm to get there; None without a target, or where the monitor looked at none."""
    curves = [curve for trial in trials if (curve := trial.curve(target.metric))[1]]
    if target.value is None or not curves:
        return None
    places: list[dict[str, float]] = []
    seeds = early = 0
    for rows, values in curves:
        found = {axis: first_reached([row[axis] for row in rows], values, target.value) for axis in AXES}
        seeds += found["images"] is not None
        early += found["images"] is not None and found["images"][1]
        places.append({axis: rows[-1][axis] if at is None else at[0] for axis, at in found.items()})
    late = len(curves) - seeds
    bound = "unknown" if early and late else "before" if early else "after" if late else ""
    by_axis = {axis: [place[axis] for place in places] for axis in AXES}
    margins = {axis: half for axis, x in by_axis.items() if not bound and (half := half_interval(x)) is not None}
    return Reached(len(curves), seeds, early, bound, {a: statistics.fmean(x) for a, x in by_axis.items()}, margins)


def curve_table(trial: Trial) -> dict[str, Any]:
    """The seed of a run, how it ended, where the monitor looked and what it saw, as a list each; None where nothing."""
    rows = trial.looks()
    names = [*("step", *AXES), *(name for name in (*WATCHED, "knn_balanced") if any(name in row for row in rows))]
    return {"seed": trial.seed, "state": trial.state, **{name: [row.get(name) for row in rows] for name in names}}
