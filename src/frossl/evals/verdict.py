"""Whether pretraining helped or the encoder collapsed: rules, and words that terminal, report and monitor share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from frossl.evals import METRICS, columns
from frossl.evals.linear import DRAWS
from frossl.evals.suite import CONTROLS, Evaluation

COLLAPSED, CLOSE = 2.0, 0.25
"""Effective rank below which features vary along hardly any direction; share of what there could be that is few."""

NEVER_VARIED = "Features never varied"
TO_MEAN_DIRECTION = "Collapsed to the mean direction"
TO_CONSTANT = "Collapsed to a constant"
DIMENSIONAL = "Dimensional collapse"
INVARIANCE_ALONE = "Invariance is solved while entropy falls"
COLLAPSES = frozenset({NEVER_VARIED, TO_MEAN_DIRECTION, TO_CONSTANT, DIMENSIONAL, INVARIANCE_ALONE})
"""States of a run that are told first, and of which the health monitor tells only the most complete."""


def never_varied(what: str = "features", of: str = "images") -> str:
    """Why ``what`` does not vary although nothing was trained yet."""
    return (
        f"Not even {what} of the untrained encoder vary: the {of} are all alike, or it answers with a constant from "
        "the start."
    )


STATES = {
    NEVER_VARIED: never_varied()
    + " Look at the images; what lies in a narrow part of the range of intensities is lost in 8 bits.",
    "Collapsed": "The encoder gives nearly the same answer, up to one number, for every image.",
    "Close to collapse": "The features vary along few directions.",
    "Not collapsed": "",
}
"""What the effective rank says of an encoder, and what that means."""


def rank_state(rank: float, untrained: float | None, images: int) -> str:
    """One of :data:`STATES`, by the effective rank of ``images`` and that of the untrained encoder.

    Of less than nine images, which span few directions, a rank is a collapse only if it is far below those. Where
    nothing varied before training either, training is not to blame.

    >>> rank_state(1.2, 9.0, 1000), rank_state(1.2, 1.2, 3), rank_state(0.0, None, 3), rank_state(2.5, 20.0, 1000)
    ('Collapsed', 'Not collapsed', 'Collapsed', 'Close to collapse')
    """
    if rank == untrained == 0:
        return NEVER_VARIED
    if rank < min(COLLAPSED, CLOSE * (images - 1)):
        return "Collapsed"
    return "Close to collapse" if rank < CLOSE * (untrained or 0.0) else "Not collapsed"


@dataclass(frozen=True)
class Outcome:
    """How the pretrained encoder stands against the better control: in a few words, as a mood, and by accuracy."""

    headline: str
    mood: str
    gains: str

    @property
    def helped(self) -> bool:
        """Whether an accuracy is clearly better."""
        return self.headline.startswith("Pretraining helped")


def outcome(evaluation: Evaluation) -> Outcome | None:
    """What the accuracies that decide say, as far as the held-out images tell; None if none was measured."""
    pretrained, untrained = evaluation.arms["pretrained"], evaluation.arms.get("untrained", {})
    controls = [evaluation.arms[name] for name in CONTROLS if name in evaluation.arms]
    gains, clear, harm = [], [], False
    for name, column in columns().items():
        measured = [values[name] for values in controls if name in values]
        if not column.decides or name not in pretrained or not measured:
            continue
        share, better, std = pretrained[name], max(measured), pretrained.get(f"{name}_std", 0.0)
        clear.append(_clearly(share, better, evaluation.held_out, std))
        harm = harm or _clearly(share, untrained.get(name, 0.0), evaluation.held_out, std) < 0
        gains.append(f"{column.heading} {100 * (share - better):+.1f} points{'' if clear[-1] else ', within noise'}")
    if not gains:
        return None
    short = "did harm" if harm else "fell short of raw pixels"
    if 1 in clear and -1 in clear:
        headline, mood = f"Pretraining helped in one way and {short} in another", "mixed"
    elif 1 in clear:
        headline, mood = ("Pretraining helped in part", "mixed") if 0 in clear else ("Pretraining helped", "good")
    elif -1 in clear:
        headline, mood = f"Pretraining {short}", "bad"
    else:
        headline, mood = "Pretraining made no clear difference", "unknown"
    return Outcome(headline, mood, "; ".join(gains))


def _clearly(share: float, other: float, n: int, std: float) -> int:
    """1 where ``share`` of ``n`` held-out images is above ``other`` by two standard errors, -1 where below, else 0.

    Two right and two wrong answers are added to both (Agresti and Coull, The American Statistician 1998), without which
    few images that are all right would have no error. ``std`` is the deviation over draws of few labels, if any.
    """
    shares = [(n * one + 2) / (n + 4) for one in (share, other)]
    variance = sum(one * (1 - one) for one in shares) / (n + 4) + 2 * std**2 / DRAWS
    gain = shares[0] - shares[1]
    return int(math.copysign(abs(gain) > 2 * math.sqrt(variance), gain))


def verdict(evaluation: Evaluation) -> str:
    """A sentence or two on whether pretraining helped, or collapsed where no accuracy says so."""
    found = outcome(evaluation)
    if found:
        return f"{found.headline}: against the better control, {found.gains}."
    rank, before = (evaluation.arms[arm].get("effective_rank") for arm in ("pretrained", "untrained"))
    ranks = "" if rank is None or before is None else f"Effective rank {rank:.1f} (untrained {before:.1f}). "
    if "raw pixels" in evaluation.arms:
        judges = ", ".join(name for name, m in METRICS.items() if any(c.decides for c in m.columns.values()))
        return f"{ranks}Whether pretraining helped is judged by {judges}: measure one of them."
    if rank is None or before is None:
        return "Nothing measured says whether pretraining helped; without labels, accuracies are left out."
    state = rank_state(rank, before, evaluation.held_out)
    if state == NEVER_VARIED:
        return f"No labels, so no accuracy. {STATES[state]}"
    said = " ".join(filter(None, ("No labels, so no accuracy.", f"The encoder is {state.lower()}.", STATES[state])))
    return f"{said} {ranks}Whether it helps a task can only be told with labels."
