"""The arms of a comparison beside the controls of their encoders."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from frossl.evals.ranking import rank
from frossl.evals.suite import START
from frossl.report.study import ArmResult, at_seeds, image_errors, rankable

FIELDS = {START: "start", "untrained": "untrained", "raw pixels": "pixels", "guess": "guess"}
"""The fields of :class:`ArmResult` that hold the values of each control."""
TO_BEAT = {START: "the start", "untrained": "the untrained encoder", "raw pixels": "raw pixels"}
"""Controls that arms are set beside in sentences, and what these call them."""


def control_values(arms: Sequence[ArmResult], control: str, measure: str) -> list[float]:
    """A value for each seed, the mean over arms: those of one encoder have the same controls."""
    of_seed: dict[int, list[float]] = {}
    for arm in arms:
        for seed, value in zip(arm.seeds, getattr(arm, FIELDS[control]).get(measure, []), strict=False):
            of_seed.setdefault(seed, []).append(value)
    return list(map(statistics.fmean, of_seed.values()))


def not_above(arms: Sequence[ArmResult], measure: str, control: str) -> list[str] | None:
    """Ranked arms that are not above their control by more than the margin; None where that cannot be said.

    The margin is that of :func:`frossl.evals.ranking.rank` for the leads of arms over their controls and, as one more
    arm, no lead. It is not paired by image; with one seed it is that over images alone.
    """
    ranked, seeds = rankable(arms, measure)
    leads: dict[str, list[float]] = {control: [0.0] * len(seeds)}
    errors: dict[str, dict[str, float]] = {control: {}}
    for arm in ranked:
        values = getattr(arm, FIELDS[control])
        if len(values.get(measure, [])) < len(arm.seeds):
            return None
        beside = replace(arm, arm=control, values=values, answers={})
        error, _ = image_errors([replace(arm, answers={}), beside], measure, seeds)
        if not error:
            return None
        mine, its = (at_seeds(arm, of.values[measure], seeds) for of in (arm, beside))
        leads[arm.arm] = [one - other for one, other in zip(mine, its, strict=True)]
        errors[arm.arm], errors[control][arm.arm] = error[arm.arm], error[arm.arm][control]
    if not ranked or not seeds:
        return None
    found = rank(leads, errors)
    margins = {arm.arm: math.hypot(found.margin or 0.0, found.images[arm.arm][control]) for arm in ranked}
    return [name for name in found.means if name != control and found.means[name] <= margins[name]]
