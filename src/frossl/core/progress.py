"""The position of a run, and when a recurring action is due."""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_right

from frossl.core.length import Length

GEOMETRIC = "geometric"
# Methods differ by factors: evenly spread measurements come too late to tell fast ones apart.
GEOMETRIC_FRACTIONS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.13, 0.21, 0.34, 0.55, 0.89, 1.0)
"""Fractions of the run after which an action with the interval :data:`GEOMETRIC` is due."""


@dataclasses.dataclass(frozen=True)
class Extension:
    """A change of the length of a run from ``before`` to ``after``; ``config.json`` and checkpoints hold it.

    The schedule continues from ``start``, 0 to 1. ``again``: it had ended, and a new one covers what was added.
    """

    step: int
    seconds: float
    before: str
    after: str
    start: float
    again: bool


@dataclasses.dataclass
class Progress:
    """The position of a run.

    ``total`` is its number of steps, None for a length in minutes. ``seconds`` counts the time in the loop, over all
    resumptions; ``best`` is the best kNN accuracy; ``monitored`` is the step of the last measurement by the monitor.
    """

    length: Length
    total: int | None
    step: int = 0
    seconds: float = 0.0
    extensions: tuple[Extension, ...] = ()
    best: float | None = None
    monitored: int = 0

    def _fraction_since(self, step: int, seconds: float) -> float:
        if self.total is None:
            done, whole = self.seconds - seconds, 60 * self.length.amount - seconds
        else:
            done, whole = self.step - step, max(self.total, 1) - step
        return min(done / whole, 1.0)

    @property
    def fraction(self) -> float:
        """0 to 1 of the run, by steps, or by the clock for a length in minutes."""
        return self._fraction_since(0, 0.0)

    @property
    def schedule_fraction(self) -> float:
        """0 to 1 of the schedule: :attr:`fraction`, unless the length changed during the run."""
        if not self.extensions:
            return self.fraction
        last = self.extensions[-1]
        return last.start + (1 - last.start) * self._fraction_since(last.step, last.seconds)

    @property
    def again(self) -> bool:
        """Whether the schedule ended before and a new one runs."""
        return bool(self.extensions) and self.extensions[-1].again


class Interval:
    """Fires once per interval, given in steps, as a fraction of the run, in minutes, or as :data:`GEOMETRIC`."""

    def __init__(self, flag: str, text: str, progress: Progress, batch: int, images: int) -> None:
        self.progress, self.minutes, self.period = progress, False, 0.0
        self.geometric = text == GEOMETRIC
        if not self.geometric:
            length = Length.parse(text)
            self.minutes = length.unit == "min"
            within = {"batch": batch, "images": images, "flag": flag}
            self.period = 60 * length.amount if self.minutes else length.fraction_of(progress.length, **within)
        self.count = self._now()

    def _now(self) -> int:
        if self.geometric:
            return bisect_right(GEOMETRIC_FRACTIONS, self.progress.fraction + 1e-9)
        at = self.progress.seconds if self.minutes else self.progress.fraction
        return math.floor(at / self.period + 1e-9) if self.period else 0

    def due(self) -> bool:
        before, self.count = self.count, self._now()
        return self.count > before
