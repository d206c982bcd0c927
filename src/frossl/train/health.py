"""Rules over the rows ``diagnostics`` of a run's log: which state the run is in, and what to do.

Thresholds were set on one half of 40 runs and tried on the other (docs/results/health.md). Diagnostics are of views as
training makes them, with batch statistics; the first of them are those of the untrained encoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from frossl.evals.verdict import (
    DIMENSIONAL,
    INVARIANCE_ALONE,
    NEVER_VARIED,
    TO_CONSTANT,
    TO_MEAN_DIRECTION,
    never_varied,
)

Row = Mapping[str, float]
Result = tuple[str, str] | None
"""The message and the remedy of a rule that applies."""

EARLY = 500
"""Last step for which growth of the embeddings indicates a high learning rate, and at which the first row may be."""
PLATEAU_ROWS = 8
"""Rows with a loss near ln K that make a plateau."""
NEGLIGIBLE = 0.02
"""Fraction of its first value, or of ln K, below which a term or a loss counts as 0."""
PLACES = {"backbone": "features", "projector": "embeddings"}
_TEMPERATURE = "a --temperature of 0.1 to 0.5"
_SMALLER_INVARIANCE = "a smaller --invariance-weight"
_ANTI_COLLAPSE_HINTS = {
    "frossl": f"{_SMALLER_INVARIANCE} and --centre",
    "emp_frossl": f"{_SMALLER_INVARIANCE} and --centre",
    "corinfomax": _SMALLER_INVARIANCE,
    "vicreg": "a larger --variance-weight (paper: 25)",
    "barlow": "a larger --off-diagonal-weight (paper: 0.005)",
    "ivne": "a larger --entropy-weight (paper: 1)",
    "lejepa": "a larger --weight (0.02)",
    "empssl": "a larger --coding-rate-weight",
    **dict.fromkeys(("simclr", "dcl", "mocov2plus"), _TEMPERATURE),
    "byol": "a --momentum nearer 1",
    "dino": "a --centre-momentum of 0.9 and a --teacher-temperature of 0.04 to 0.07",
    "swav": "an --epsilon of 0.03 to 0.05",
}


@dataclass(frozen=True)
class Finding:
    """A state that a run should not be in: its name, what was observed, and what to do."""

    state: str
    message: str
    remedy: str

    def row(self) -> dict[str, str]:
        """The row ``health`` of ``metrics.jsonl``, whose keys are a stable interface."""
        return {"state": self.state, "words": self.message, "knob": self.remedy}


@dataclass(frozen=True)
class Context:
    """What the rules know of the run: its method, images per batch, and prototypes if it has them."""

    method: str
    batch: int
    clusters: int = 0
    first: str = "the untrained encoder"
    """the encoder that the first row describes"""

    @property
    def hint(self) -> str:
        """Which option of the method acts against collapse."""
        return _ANTI_COLLAPSE_HINTS.get(self.method, "more weight on the term of the loss that keeps features apart")


def diagnose(rows: Sequence[Row], context: Context) -> list[Finding]:
    """Findings at the newest of the rows ``diagnostics`` of one run, oldest first; none if all seems well.

    Without a row of the untrained encoder there is nothing to compare with, and no finding. Of several collapses only
    the most complete is reported.
    """
    if not rows or rows[0]["step"] > EARLY:
        return []
    collapses, others = (
        [Finding(state, *result) for state, rule in rules.items() if (result := rule(rows, context))]
        for rules in (_COLLAPSES, _OTHERS)
    )
    return [*collapses[:1], *others]


def _value(row: Row, name: str) -> float:
    return row.get(name, math.nan)


def _last_place(row: Row, name: str) -> str:
    """The projector where the method has one with the figure ``name``, else the backbone."""
    return "projector" if f"projector_{name}" in row else "backbone"


def _mean_direction(rows: Sequence[Row], context: Context) -> Result:
    """Entropy and invariance are both 0: the solution that ignores the image."""
    first, row = rows[0], rows[-1]
    # With "not all" a step that was not finite has no finding.
    if not all(abs(row.get(k, math.inf)) < NEGLIGIBLE * abs(first.get(k, 0)) for k in ("entropy", "invariance")):
        return None
    return (
        f"Both terms of the loss are next to 0 (entropy {row['entropy']:.3g}, invariance {row['invariance']:.3g}): "
        "every embedding points the same way, which the loss allows and which needs nothing from the image.",
        "Turn on --centre, and lower --lr or --invariance-weight.",
    )


def _never_varied(rows: Sequence[Row], context: Context) -> Result:
    """Features or embeddings are one point from the start."""
    for place, name in PLACES.items():
        if rows[0].get(f"{place}_variance") == 0:
            return never_varied(f"the {name}", "views"), "Look at the images and their views in the report."
    return None


def _constant(rows: Sequence[Row], context: Context) -> Result:
    """Features or embeddings are one point, or one prototype takes all images."""
    first, row = rows[0], rows[-1]
    if context.clusters and row["loss"] < NEGLIGIBLE * math.log(context.clusters):
        return (
            f"The loss is next to 0 ({row['loss']:.2g}): every image is given to the same one of "
            f"{context.clusters:,} prototypes.",
            f"Give {context.hint}, and lower --lr.",
        )
    for place, name in PLACES.items():
        key = f"{place}_mean_to_spread"
        ratio = math.inf if row.get(f"{place}_variance") == 0 else row.get(key, 0.0)
        if ratio > max(5.0, 2.0 * first.get(key, 0.0)):
            times = "do not vary at all" if ratio == math.inf else f"lie {ratio:.0f} times closer together than to 0"
            return (
                f"The {name} of all images {times}: every image gets the same answer.",
                f"Lower --lr, lengthen --warmup, and give {context.hint}.",
            )
    return None


def _dimensional_collapse(rows: Sequence[Row], context: Context) -> Result:
    """Features have a far smaller effective rank than those of the untrained encoder, or embeddings have one of 1."""
    before, now = (_value(row, "backbone_effective_rank") for row in (rows[0], rows[-1]))
    embeddings = _value(rows[-1], "projector_effective_rank")
    # Not for prototype scores: those of a healthy DINO run have an effective rank of little more than 1.
    if not (now < 0.15 * before or (embeddings < 1.5 and not context.clusters)):
        return None
    where = "" if math.isnan(embeddings) else f", embeddings along {embeddings:.1f}"
    return (
        f"Features vary along about {now:.1f} directions where those of {context.first} did along {before:.1f}"
        f"{where} (effective rank).",
        f"Lower --lr, and give {context.hint}.",
    )


def _invariance_alone(rows: Sequence[Row], context: Context) -> Result:
    """Views agree, and images become less and less different."""
    place = _last_place(rows[-1], "view_noise")
    noise = _value(rows[-1], f"{place}_view_noise")
    before, now = (_value(row, f"{place}_effective_rank") for row in (rows[0], rows[-1]))
    if not (noise < 0.1 and now < 0.5 * before):
        return None
    return (
        f"Views of an image agree (they differ by {noise:.0%} of the variance), but what is left varies along "
        f"{now:.1f} directions, {before:.1f} at first.",
        f"Give {context.hint}; stronger augmentation (--crop-scale, --view-recipe) makes agreement harder.",
    )


_COLLAPSES = {
    TO_MEAN_DIRECTION: _mean_direction,
    NEVER_VARIED: _never_varied,
    TO_CONSTANT: _constant,
    DIMENSIONAL: _dimensional_collapse,
    INVARIANCE_ALONE: _invariance_alone,
}
"""Rules from the most to the least complete collapse."""


def _plateau(rows: Sequence[Row], context: Context) -> Result:
    """The loss stays at the logarithm of the number of prototypes."""
    if not context.clusters or len(rows) < PLATEAU_ROWS:
        return None
    level = math.log(context.clusters)
    if any(abs(row["loss"] - level) > NEGLIGIBLE * level for row in rows[-PLATEAU_ROWS:]):
        return None
    return (
        f"The loss stays at {level:.2f}, the logarithm of the {context.clusters:,} prototypes: every image is given to "
        "all of them alike.",
        f"Sharpen the targets: {context.hint}; lower --temperature or --student-temperature if it was raised.",
    )


def _view_ignored(rows: Sequence[Row], context: Context) -> Result:
    """One view is the same for every image."""
    least = min(rows[-1].get(f"{place}_least_view", math.inf) for place in PLACES)
    if least >= 0.25:
        return None
    return (
        f"The features of one view vary {least:.1%} as much as those of the average view: it is nearly the same for "
        "every image.",
        "Look at the views in the report or in TensorBoard and mend the --view-recipe.",
    )


def _weak_augmentation(rows: Sequence[Row], context: Context) -> Result:
    """Views are alike before anything was learned."""
    noise = _value(rows[0], "backbone_view_noise")
    if not noise < 0.2:
        return None
    return (
        f"To {context.first} views of an image differ by {noise:.0%} of what images differ by: there is nothing "
        "to become invariant to.",
        "Use a stronger --view-recipe, or smaller crops: --crop-scale 0.2 1.",
    )


def _learning_rate_too_high(rows: Sequence[Row], context: Context) -> Result:
    """The variance of embeddings explodes early."""
    key = f"{_last_place(rows[-1], 'variance')}_variance"
    then, *later = (_value(row, key) for row in rows if row["step"] <= EARLY)
    now = max(later, default=then)
    if not now > 500 * then:
        return None
    return (
        f"The variance of the embeddings grew to {now / then:,.0f} times what it was at the start.",
        "Divide --lr by 10, or lengthen --warmup; --clip 1 helps against single steps.",
    )


_NO_TERMS = {"kind", "loss", "grad_norm", "step", "epoch", "images", "seconds"}


def _loss_scale(rows: Sequence[Row], context: Context) -> Result:
    """The gradient vanishes, or one term is far larger than all others."""
    row = rows[-1]
    norm = _value(row, "grad_norm")
    if norm < 1e-6:
        message = f"The norm of the gradient is {norm:.1g}: nothing is learned."
        return message, "Raise --scale or the weights of the loss, or --lr."
    terms = {k: abs(v) for k, v in row.items() if k not in _NO_TERMS and k.partition("_")[0] not in PLACES}
    loudest = max(terms, key=lambda name: terms[name], default="")
    most = terms.pop(loudest, 0.0)
    rest = sum(terms.values())
    if not 0 < 100 * rest < most:
        return None
    return (
        f"The {loudest} term is {most / rest:,.0f} times as large as all others together, which count for nothing "
        "beside it.",
        f"Lower the weight of the {loudest} term.",
    )


_OTHERS = {
    "Plateau at ln K": _plateau,
    "One view says nothing": _view_ignored,
    "Augmentation is too weak": _weak_augmentation,
    "Learning rate too high": _learning_rate_too_high,
    "Loss scale is wrong": _loss_scale,
}
