"""Rules over the rows ``diagnostics`` of a run's log: which state the run is in, and what to do.

Thresholds were set on one half of 40 runs and tried on the other (docs/results/health.md). Diagnostics are of views as
training makes them, with batch statistics; the first of them are those of the untrained encoder.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from frossl.evals import verdict

Row = Mapping[str, float]
EARLY = 500
"""Last step for which growth of the embeddings indicates a high learning rate, and at which the first row may be."""
PLATEAU_ROWS = 8
"""Rows with a loss near ln K that make a plateau."""
NEGLIGIBLE = 0.02
"""Fraction of its first value, or of ln K, below which a term or a loss counts as 0."""
_NO_TERMS = {"kind", "loss", "grad_norm", "step", "epoch", "images", "seconds"}
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
        return {"state": self.state, "message": self.message, "remedy": self.remedy}


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
    return [*islice(_collapses(rows[0], rows[-1], context), 1), *_others(rows, context)]


def _value(row: Row, name: str) -> float:
    return row.get(name, math.nan)  # every comparison with NaN is false, so a rule without its figures does not apply


def _last_place(row: Row, name: str) -> str:
    """The projector where the method has one with the figure ``name``, else the backbone."""
    return "projector" if f"projector_{name}" in row else "backbone"


def _collapses(first: Row, row: Row, context: Context) -> Iterator[Finding]:
    """Collapses, from the most to the least complete."""
    if all(abs(_value(row, k)) < NEGLIGIBLE * abs(_value(first, k)) for k in ("entropy", "invariance")):
        yield Finding(
            verdict.TO_MEAN_DIRECTION,
            f"Both terms of the loss are next to 0 (entropy {row['entropy']:.3g}, invariance {row['invariance']:.3g}): "
            "every embedding points the same way, which the loss allows and which needs nothing from the image.",
            "Turn on --centre, and lower --lr or --invariance-weight.",
        )
    for place, name in PLACES.items():
        if first.get(f"{place}_variance") == 0:
            message = verdict.never_varied(f"the {name}", "views")
            yield Finding(verdict.NEVER_VARIED, message, "Look at the images and their views in the report.")
    if context.clusters and row["loss"] < NEGLIGIBLE * math.log(context.clusters):
        yield Finding(
            verdict.TO_CONSTANT,
            f"The loss is next to 0 ({row['loss']:.2g}): every image is given to the same one of "
            f"{context.clusters:,} prototypes.",
            f"Give {context.hint}, and lower --lr.",
        )
    for place, name in PLACES.items():
        key = f"{place}_mean_to_spread"
        ratio = math.inf if row.get(f"{place}_variance") == 0 else row.get(key, 0.0)
        if ratio > max(5.0, 2.0 * first.get(key, 0.0)):
            times = "do not vary at all" if ratio == math.inf else f"lie {ratio:.0f} times closer together than to 0"
            message = f"The {name} of all images {times}: every image gets the same answer."
            yield Finding(verdict.TO_CONSTANT, message, f"Lower --lr, lengthen --warmup, and give {context.hint}.")
    before, now = (_value(r, "backbone_effective_rank") for r in (first, row))
    embeddings = _value(row, "projector_effective_rank")
    # Not for prototype scores: those of a healthy DINO run have an effective rank of little more than 1.
    if now < 0.15 * before or (embeddings < 1.5 and not context.clusters):
        where = "" if math.isnan(embeddings) else f", embeddings along {embeddings:.1f}"
        yield Finding(
            verdict.DIMENSIONAL,
            f"Features vary along about {now:.1f} directions where those of {context.first} did along {before:.1f}"
            f"{where} (effective rank).",
            f"Lower --lr, and give {context.hint}.",
        )
    place = _last_place(row, "view_noise")
    noise = _value(row, f"{place}_view_noise")
    before, now = (_value(r, f"{place}_effective_rank") for r in (first, row))
    if noise < 0.1 and now < 0.5 * before:
        yield Finding(
            verdict.INVARIANCE_ALONE,
            f"Views of an image agree (they differ by {noise:.0%} of the variance), but what is left varies along "
            f"{now:.1f} directions, {before:.1f} at first.",
            f"Give {context.hint}; stronger augmentation (--crop-scale, --view-recipe) makes agreement harder.",
        )


def _others(rows: Sequence[Row], context: Context) -> Iterator[Finding]:
    """Findings that are no collapse."""
    level = math.log(context.clusters) if context.clusters else math.nan
    near = [abs(_value(row, "loss") - level) <= NEGLIGIBLE * level for row in rows[-PLATEAU_ROWS:]]
    if len(near) == PLATEAU_ROWS and all(near):
        yield Finding(
            "Plateau at ln K",
            f"The loss stays at {level:.2f}, the logarithm of the {context.clusters:,} prototypes: every image is "
            "given to all of them alike.",
            f"Sharpen the targets: {context.hint}; lower --temperature or --student-temperature if it was raised.",
        )
    least = min(rows[-1].get(f"{place}_least_view", math.inf) for place in PLACES)
    if least < 0.25:
        yield Finding(
            "One view says nothing",
            f"The features of one view vary {least:.1%} as much as those of the average view: it is nearly the same "
            "for every image.",
            "Look at the views in the report or in TensorBoard and mend the --view-recipe.",
        )
    noise = _value(rows[0], "backbone_view_noise")
    if noise < 0.2:
        yield Finding(
            "Augmentation is too weak",
            f"To {context.first} views of an image differ by {noise:.0%} of what images differ by: there is nothing "
            "to become invariant to.",
            "Use a stronger --view-recipe, or smaller crops: --crop-scale 0.2 1.",
        )
    key = f"{_last_place(rows[-1], 'variance')}_variance"
    then, *later = (_value(row, key) for row in rows if row["step"] <= EARLY)
    now = max(later, default=then)
    if now > 500 * then:
        yield Finding(
            "Learning rate too high",
            f"The variance of the embeddings grew to {now / then:,.0f} times what it was at the start.",
            "Divide --lr by 10, or lengthen --warmup; --clip 1 helps against single steps.",
        )
    message, remedy = _loss_scale(rows[-1])
    if message:
        yield Finding("Loss scale is wrong", message, remedy)


def _loss_scale(row: Row) -> tuple[str, str]:
    """Message and remedy for a gradient of 0 or a term that is far larger than all others; empty if neither."""
    norm = _value(row, "grad_norm")
    if norm < 1e-6:
        message = f"The norm of the gradient is {norm:.1g}: nothing is learned."
        return message, "Raise --scale or the weights of the loss, or --lr."
    terms = {k: abs(v) for k, v in row.items() if k not in _NO_TERMS and k.partition("_")[0] not in PLACES}
    largest = max(terms, key=lambda name: terms[name], default="")
    most, rest = terms.pop(largest, 0.0), sum(terms.values())
    if not 0 < 100 * rest < most:
        return "", ""
    times = f"{most / rest:,.0f} times as large as all others together"
    message = f"The {largest} term is {times}, which count for nothing beside it."
    return message, f"Lower the weight of the {largest} term."
