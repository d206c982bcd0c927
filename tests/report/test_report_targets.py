"""A race whose answers are known: what is read from the looks of the monitor, and what used to be."""

from pathlib import Path

import pytest

from frossl.core.progress import GEOMETRIC_FRACTIONS
from frossl.evals.ranking import first_reached
from frossl.report.targets import find_target, reach
from frossl.report.trial import Trial
from frossl.runs.record import Record

TARGET, TOP = 0.3, 0.6
SECONDS = 100.0
NEEDED = {"cheap": 150, "dear": 240}
"""Images after which each arm has the target."""
SPEED = {"cheap": 100, "dear": 25}
"""Images a second: the dear arm needs more images, and more time for each."""
EVENLY = [10 * i for i in range(1, 11)]


def race(arm: str, seed: int, percents: list[float]) -> Trial:
    """A run of an arm, seen after these per cent of its time; seeds differ by a fiftieth of what they need."""
    rows = []
    for percent in percents:
        seconds = SECONDS * percent / 100
        images = SPEED[arm] * seconds
        knn = TOP * (1 - 0.5 ** (images / (NEEDED[arm] * (1 + 0.02 * seed))))
        where = {"step": int(images), "epoch": images / 50_000, "images": images, "seconds": seconds}
        rows.append({"kind": "monitor", **where, "knn": knn})
    about = {"views": [{"count": 2}], "config": {"monitor_every": ""}}
    return Trial(arm, arm, "100min", seed, "done", {}, Record(arm, Path(arm), about, [], rows, {}))


def old_reading(trials: list[Trial], axis: str) -> float:
    """The mean over seeds of the first look, or the line between two, at which the target is there."""
    places = []
    for trial in trials:
        rows, values = trial.curve("knn")
        at = first_reached([row[axis] for row in rows], values, TARGET)
        assert at is not None
        places.append(at[0])
    return sum(places) / len(places)


def runs(percents: list[float]) -> dict[str, list[Trial]]:
    return {arm: [race(arm, seed, percents) for seed in range(3)] for arm in NEEDED}


def test_the_first_look_made_the_slower_arm_look_the_faster_one():
    seen = runs(EVENLY)
    images, seconds = (
        {arm: old_reading(trials, axis) for arm, trials in seen.items()} for axis in ("images", "seconds")
    )
    assert images["dear"] < images["cheap"] / 3  # it needs 1.6 times as many
    assert seconds["dear"] == seconds["cheap"]  # it needs 6.4 times as long
    for trials in seen.values():  # what is said now of the same looks
        found = reach(trials, find_target(trials, "knn", TARGET))
        assert found is not None
        assert (found.bound, found.early) == ("before", 3)


def test_geometric_looks_give_both_arms_what_they_need():
    for arm, trials in runs([100 * share for share in GEOMETRIC_FRACTIONS]).items():
        found = reach(trials, find_target(trials, "knn", TARGET))
        assert found is not None
        assert found.bound == ""
        needed = NEEDED[arm] * 1.02  # the mean over seeds
        assert found.means["images"] == pytest.approx(needed, rel=0.06)
        assert found.means["seconds"] == pytest.approx(needed / SPEED[arm], rel=0.06)
        assert found.margins["images"] > 0
