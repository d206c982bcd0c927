"""When something is due in the course of a run."""

from __future__ import annotations

import pytest

from frossl.core.length import Length
from frossl.core.progress import GEOMETRIC, Interval, Progress


def due(text: str, steps: int, first: int = 0) -> list[int]:
    """After which steps of a run of so many, begun or gone on from ``first``, something is due."""
    progress = Progress(Length(steps, "it"), steps, step=first)
    interval, found = Interval("--monitor-every", text, progress, 8, 80), []
    for step in range(first + 1, steps + 1):
        progress.step = step
        if interval.due():
            found.append(step)
    return found


@pytest.mark.parametrize(
    ("steps", "first", "wanted"),
    [
        (1000, 0, [10, 20, 30, 50, 80, 130, 210, 340, 550, 890, 1000]),
        (1000, 50, [80, 130, 210, 340, 550, 890, 1000]),
        (7, 0, [1, 2, 3, 4, 7]),  # several shares within one step are one look
    ],
)
def test_geometric_is_dense_at_first_and_ends_with_the_run(steps, first, wanted):
    assert due(GEOMETRIC, steps, first) == wanted


def test_a_share_is_due_at_its_multiples():
    assert due("25%", 10) == [3, 5, 8, 10]


def test_geometric_goes_by_the_clock_where_the_length_does():
    progress = Progress(Length(1, "min"), None)
    interval = Interval("--monitor-every", GEOMETRIC, progress, 8, 80)
    seen = []
    for progress.step, progress.seconds in enumerate((0.5, 0.7, 3.0, 3.1, 59.0, 60.5), 1):
        seen.append(interval.due())
    assert seen == [False, True, True, False, True, True]
