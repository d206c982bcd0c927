"""The cost of reaching a target accuracy, from the curves of the monitor, which measures now and then."""

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
"""The scores of raw pixels that a target must beat, unless it is given; the first that was measured counts."""


@dataclass(frozen=True)
class Target:
    """``value`` of ``metric`` while training; None where no run got above ``pixels``, the score of raw pixels if known.

    It was ``given`` by who asked, or is the best value of the worst run above pixels. ``every`` is how often the
    monitor measured.
    """

    metric: Watched
    value: float | None
    given: bool
    pixels: float | None
    every: list[str]


@dataclass(frozen=True)
class Reached:
    """How many of the ``watched`` seeds reached the target, ``early`` ones before the monitor first measured.

    ``means`` are over seeds, by axis. They are exact if ``bound`` is empty, with half the 95 % interval over several
    seeds as ``margins``. If it is "before", some seeds were early and count as at their first measurement; if "after",
    some did not reach the target and count as at their last; if "unknown", there are both.
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
    """The cost of reaching the target, over the seeds of an arm; None without a target, or without a curve."""
    curves = [curve for trial in trials if (curve := trial.curve(target.metric))[1]]
    if target.value is None or not curves:
        return None
    seeds = early = 0
    by_axis: dict[str, list[float]] = {axis: [] for axis in AXES}
    for rows, values in curves:
        found = {axis: first_reached([row[axis] for row in rows], values, target.value) for axis in AXES}
        seeds += found["images"] is not None
        early += found["images"] is not None and found["images"][1]
        for axis, at in found.items():
            by_axis[axis].append(rows[-1][axis] if at is None else at[0])
    late = len(curves) - seeds
    bound = "unknown" if early and late else "before" if early else "after" if late else ""
    margins = {axis: half for axis, x in by_axis.items() if not bound and (half := half_interval(x)) is not None}
    return Reached(len(curves), seeds, early, bound, {a: statistics.fmean(x) for a, x in by_axis.items()}, margins)


def curve_table(trial: Trial) -> dict[str, Any]:
    """The seed of a run, how it ended, and the columns of the monitor's rows; None where a row has no value."""
    rows = trial.monitored()
    names = [*("step", *AXES), *(name for name in (*WATCHED, "knn_balanced") if any(name in row for row in rows))]
    return {"seed": trial.seed, "state": trial.state, **{name: [row.get(name) for row in rows] for name in names}}
