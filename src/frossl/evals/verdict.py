"""Whether pretraining helped or the encoder collapsed: rules and messages of terminal, report and monitor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from frossl.evals import Column, applicable
from frossl.evals.guess import GUESSES
from frossl.evals.interval import Z
from frossl.evals.linear import DRAWS
from frossl.evals.suite import CONTROLS, START, Evaluation

COLLAPSED, CLOSE = 2.0, 0.25
"""Effective rank that is a collapse, and fraction of the possible or the untrained rank that is close to one."""

NEVER_VARIED = "Features never varied"
TO_MEAN_DIRECTION = "Collapsed to the mean direction"
TO_CONSTANT = "Collapsed to a constant"
DIMENSIONAL = "Dimensional collapse"
INVARIANCE_ALONE = "Invariance is solved while entropy falls"
COLLAPSES = frozenset({NEVER_VARIED, TO_MEAN_DIRECTION, TO_CONSTANT, DIMENSIONAL, INVARIANCE_ALONE})
"""States of a run that reports name first; of several, the health monitor reports only the most complete."""


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
"""States of an encoder by its effective rank, and what they mean."""


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
    """The pretrained encoder against the better control: a headline, a mood, and the gain by score.

    ``notes`` are sentences on how far to trust the scores.
    """

    headline: str
    mood: str
    gains: str
    notes: tuple[str, ...] = ()
    against: str = "the better control"

    @property
    def helped(self) -> bool:
        """Whether a score is clearly better."""
        return self.headline.startswith(("Pretraining helped", "Continuing helped"))


def outcome(evaluation: Evaluation) -> Outcome | None:
    """The outcome by the scores that decide, with the noise of the held-out images; None if none was measured.

    Where training began with a published encoder that is the control, and the outcome against the others is a note.
    """
    others = [arm for arm in CONTROLS if arm != START]
    found = None if START not in evaluation.arms else _against(evaluation, [START], "Continuing")
    if found is None:
        return _against(evaluation, others, "Pretraining")
    beside = _against(evaluation, others, "Pretraining")
    notes = found.notes
    if beside is not None:
        notes = *notes, f"Against the better of the other controls, {beside.gains}.", *beside.notes
    return replace(found, notes=tuple(dict.fromkeys(notes)), against="the start")


def reference(arms: Mapping[str, Mapping[str, float]]) -> str:
    """The arm that ranks are compared with: the start where there is one, else the untrained encoder."""
    return START if START in arms else "untrained"


def _against(evaluation: Evaluation, arms: Sequence[str], what: str) -> Outcome | None:
    """:func:`outcome` against the best of some controls; ``what`` is "Pretraining" or "Continuing"."""
    pretrained, images = evaluation.arms["pretrained"], evaluation.held_out
    gains, clear, better, above_guess = [], [], [], []
    for name, column in deciding(evaluation).items():
        controls = {arm: evaluation.arms[arm] for arm in arms if name in evaluation.arms.get(arm, {})}
        if not controls:
            continue
        signs = {arm: clearly_better(name, column, pretrained, values, images) for arm, values in controls.items()}
        best = max(controls, key=lambda arm: controls[arm][name])
        clear.append(signs[best])
        better += [arm for arm, sign in signs.items() if sign < 0 and arm in (best, "untrained", START)]
        above_guess += [sign > 0 for arm, sign in signs.items() if arm in GUESSES.values()]
        gain = 100 * (pretrained[name] - controls[best][name])
        gains.append(f"{column.heading} {gain:+.1f} points{'' if signs[best] else ', within noise'}")
    if not gains:
        return None
    worse = "did harm"
    if better and not {"untrained", START} & set(better):
        worse = f"fell short of {'guessing the ' * (better[0] in GUESSES.values())}{better[0]}"
    if 1 in clear and -1 in clear:
        headline, mood = f"{what} helped in one way and {worse} in another", "mixed"
    elif 1 in clear:
        headline, mood = (f"{what} helped in part", "mixed") if 0 in clear else (f"{what} helped", "good")
    elif -1 in clear:
        headline, mood = f"{what} {worse}", "bad"
    else:
        headline, mood = f"{what} made no clear difference", "unknown"
    return Outcome(headline, mood, "; ".join(gains), _notes(evaluation, above_guess))


def deciding(evaluation: Evaluation, arm: str = "pretrained") -> dict[str, Column]:
    """The columns that decide and were measured: of uneven classes balanced accuracies, where there are any."""
    measured = evaluation.arms[arm]
    found = {n: c for n, c in evaluation.columns().items() if c.decides and n in measured}
    return {n: c for n, c in found.items() if f"{n}_balanced" not in found}


def _notes(evaluation: Evaluation, above_guess: Sequence[bool]) -> tuple[str, ...]:
    """The share of the largest class where classes are uneven, and whether features are better than a guess."""
    notes = []
    if evaluation.uneven:
        largest = max(evaluation.arms[GUESSES["classes"]].values())
        notes.append(f"The largest class has {largest:.0%} of the held-out images, so balanced accuracy decides.")
    if above_guess and not any(above_guess):
        guess = next(arm for arm in GUESSES.values() if arm in evaluation.arms)
        notes.append(f"The features are not clearly better than guessing the {guess}.")
    return tuple(notes)


def clearly_better(
    name: str, column: Column, pretrained: Mapping[str, float], other: Mapping[str, float], images: int
) -> int:
    """1 where the score of ``pretrained`` is above that of ``other`` beyond the noise, -1 where below, else 0.

    ``NAME_std`` is the deviation over draws of few labels, if any. Intervals of scores that are no shares of right
    answers are joined as in Zou and Donner (Statistics in Medicine 2008); what has none, such as a guess, is exact.
    """
    std = pretrained.get(f"{name}_std", 0.0)
    if column.score == "accuracy":
        return clearly_more_right(pretrained[name], other[name], images, std)
    gain = pretrained[name] - other[name]
    low, high = (pretrained, other) if gain > 0 else (other, pretrained)  # the noise that could reverse the gain
    below = low[name] - low.get(f"{name}_low", low[name])
    above = high.get(f"{name}_high", high[name]) - high[name]
    return int(math.copysign(abs(gain) > math.hypot(below, above, Z * std * math.sqrt(2 / DRAWS)), gain))


def clearly_more_right(accuracy: float, other: float, n: int, std: float) -> int:
    """:func:`clearly_better` of shares of ``n`` held-out images: beyond two standard errors.

    Two right and two wrong answers are added to both (Agresti and Coull, The American Statistician 1998), without which
    few images that are all right would have no error.
    """
    shares = [(n * one + 2) / (n + 4) for one in (accuracy, other)]
    variance = sum(one * (1 - one) for one in shares) / (n + 4) + 2 * std**2 / DRAWS
    gain = shares[0] - shares[1]
    return int(math.copysign(abs(gain) > 2 * math.sqrt(variance), gain))


def verdict(evaluation: Evaluation) -> str:
    """A sentence or two on whether pretraining helped, or collapsed where no accuracy says so."""
    found = outcome(evaluation)
    if found:
        return " ".join((f"{found.headline}: against {found.against}, {found.gains}.", *found.notes))
    known = reference(evaluation.arms)
    rank, before = (evaluation.arms[arm].get("effective_rank") for arm in ("pretrained", known))
    ranks = "" if rank is None or before is None else f"Effective rank {rank:.1f} ({known} {before:.1f}). "
    if "raw pixels" in evaluation.arms:
        fitting = applicable(None, evaluation.targets or "classes")
        judges = ", ".join(name for name, m in fitting.items() if any(c.decides for c in m.columns.values()))
        return f"{ranks}Whether pretraining helped is judged by {judges}: measure one of them."
    if rank is None or before is None:
        return "Nothing measured says whether pretraining helped; without labels, accuracies are left out."
    state = rank_state(rank, before, evaluation.held_out)
    if state == NEVER_VARIED:
        return f"No labels, so no accuracy. {STATES[state]}"
    text = " ".join(filter(None, ("No labels, so no accuracy.", f"The encoder is {state.lower()}.", STATES[state])))
    return f"{text} {ranks}Whether it helps a task can only be told with labels."
