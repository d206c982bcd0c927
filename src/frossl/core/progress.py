"""Where a run is, and when something that is done now and then is due."""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_right

from frossl.core.length import Length

GEOMETRIC = "geometric"
LOOKS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.13, 0.21, 0.34, 0.55, 0.89, 1.0)
"""Shares of a run after which what comes :data:`GEOMETRIC` is due."""


@dataclasses.dataclass(frozen=True)
class Extension:
    """Where a run of the length ``before`` got another, ``after``.

    Its schedule goes on from ``start``, 0 to 1. ``again``: it had come to its end, and this is another one, over what
    was added since.
    """

    step: int
    seconds: float
    before: str
    after: str
    start: float
    again: bool


@dataclasses.dataclass
class Progress:
    """Where a run is.

    ``seconds`` counts time spent in the loop, over all resumptions; ``best`` is the best kNN; ``looked`` is the step
    after which the monitor last looked.
    """

    length: Length
    total: int | None
    step: int = 0
    seconds: float = 0.0
    extensions: tuple[Extension, ...] = ()
    best: float | None = None
    monitored: int = 0

    @property
    def share(self) -> float:
        """0 to 1 of the run, by steps, or by the clock for a length in minutes."""
        done = self.seconds / (60 * self.length.amount) if self.total is None else self.step / max(self.total, 1)
        return min(done, 1.0)

    @property
    def along(self) -> float:
        """0 to 1 of the schedule: :attr:`share`, or what is left of the schedule over what is left of the run."""
        if not self.extensions:
            return self.share
        last = self.extensions[-1]
        if self.total is None:
            done = (self.seconds - last.seconds) / (60 * self.length.amount - last.seconds)
        else:
            done = (self.step - last.step) / (self.total - last.step)
        return last.start + (1 - last.start) * min(done, 1.0)

    @property
    def again(self) -> bool:
        """Whether the run came to the end of its schedule before, and has another."""
        return bool(self.extensions) and self.extensions[-1].again


class Interval:
    """Says when something is due, once per interval of steps, of the run, or of minutes, as ``flag`` gave it.

    ``text`` may be :data:`GEOMETRIC`.
    """

    def __init__(self, flag: str, text: str, progress: Progress, batch: int, images: int) -> None:
        self.progress, self.geometric, self.minutes = progress, text == GEOMETRIC, False
        if not self.geometric:
            length = Length.parse(text)
            self.minutes = length.unit == "min"
            if self.minutes:
                self.period = 60 * length.amount
            else:
                self.period = length.share(progress.length, batch=batch, images=images, flag=flag)
        self.count = self._now()

    def _now(self) -> int:
        if self.geometric:
            return bisect_right(LOOKS, self.progress.share + 1e-9)
        at = self.progress.seconds if self.minutes else self.progress.share
        return math.floor(at / self.period + 1e-9) if self.period else 0

    def due(self) -> bool:
        before, self.count = self.count, self._now()
        return self.count > before
