"""What state a run is in, what is seen, and what to do: rules over the rows ``diagnostics`` of its log.

Thresholds were set on one half of 40 runs and tried on the other (docs/results/health.md). Diagnostics are of views as
training makes them, with batch statistics; the first of them are those of the untrained encoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from frossl.evals.verdict import (
    DIMENSIONAL,
    INVARIANCE_ALONE,
    NEVER_VARIED,
    TO_CONSTANT,
    TO_MEAN_DIRECTION,
    never_varied,
)

Row = Mapping[str, float]
Said = tuple[str, str] | None
"""What is seen and what to do, where a rule applies."""

EARLY = 500
"""Last step at which growth tells that steps are too long, and at which the first row may be."""
_TEMPERATURE = "a --temperature of 0.1 to 0.5"
_SPREAD = {
    "frossl": "a smaller --invariance-weight and --centre",
    "emp_frossl": "a smaller --invariance-weight and --centre",
    "vicreg": "a larger --variance-weight (paper: 25)",
    "barlow": "a larger --off-diagonal-weight (paper: 0.005)",
    "ivne": "a larger --entropy-weight (paper: 1)",
    "lejepa": "a larger --weight (0.02)",
    "empssl": "a larger --coding-rate-weight",
    "corinfomax": "a smaller --invariance-weight",
    "simclr": _TEMPERATURE,
    "dcl": _TEMPERATURE,
    "mocov2plus": _TEMPERATURE,
    "byol": "a --momentum nearer 1",
    "dino": "a --centre-momentum of 0.9 and a --teacher-temperature of 0.04 to 0.07",
    "swav": "an --epsilon of 0.03 to 0.05",
}
"""By method, what keeps its features apart."""


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
    """What the rules know of the run: its method, images per batch, prototypes if it has them, and where it began."""

    method: str
    batch: int
    clusters: int = 0
    first: str = "the untrained encoder"
    """what the first row is of"""

    @property
    def spread(self) -> str:
        """What to turn so that features keep apart."""
        return _SPREAD.get(self.method, "more weight on the term of the loss that keeps features apart")


def diagnose(rows: Sequence[Row], context: Context) -> list[Finding]:
    """Findings at the newest of the rows ``diagnostics`` of one run, oldest first; none if all seems well.

    Rows that do not begin with the untrained encoder say nothing, as there is nothing to compare with. Of several
    collapses only the most complete is told.
    """

    def found(rules: Mapping[str, Callable[[Sequence[Row], Context], Said]]) -> Iterator[Finding]:
        for state, rule in rules.items():
            if said := rule(rows, context):
                yield Finding(state, *said)

    if not rows or rows[0]["step"] > EARLY:
        return []
    return [*islice(found(_COLLAPSES), 1), *found(_OTHERS)]


NOTHING = 0.02
"""What is left of a term, as a share of the first, or of a loss, as a share of ln K, that counts as nothing."""


def _mean_direction(rows: Sequence[Row], context: Context) -> Said:
    """Entropy and invariance both gone: the solution that needs nothing from the image."""
    first, row = rows[0], rows[-1]
    # Not "any larger": of a step that was not finite nothing can be said.
    if not all(abs(row.get(k, math.inf)) < NOTHING * abs(first.get(k, 0)) for k in ("entropy", "invariance")):
        return None
    return (
        f"Both terms of the loss are next to 0 (entropy {row['entropy']:.3g}, invariance {row['invariance']:.3g}): "
        "every embedding points the same way, which the loss allows and which needs nothing from the image.",
        "Turn on --centre, and lower --lr or --invariance-weight.",
    )


PLACES = {"backbone": "features", "projector": "embeddings"}


def _never_varied(rows: Sequence[Row], context: Context) -> Said:
    """Features or embeddings that are one point from the start."""
    still = [name for place, name in PLACES.items() if rows[0].get(f"{place}_variance") == 0]
    if not still:
        return None
    return never_varied(f"the {still[0]}", "views"), "Look at the images and their views in the report."


FAR, FARTHER = 5.0, 2.0
"""Mean over spread, as it is and over the first one, from which features are one point."""


def _constant(rows: Sequence[Row], context: Context) -> Said:
    """Features or embeddings that are one point, or one prototype for all."""
    first, row = rows[0], rows[-1]
    if context.clusters and row["loss"] < NOTHING * math.log(context.clusters):
        return (
            f"The loss is next to 0 ({row['loss']:.2g}): every image is given to the same one of "
            f"{context.clusters:,} prototypes.",
            f"Give {context.spread}, and lower --lr.",
        )
    for place, name in PLACES.items():
        key = f"{place}_mean_to_spread"
        ratio = math.inf if row.get(f"{place}_variance") == 0 else row.get(key, 0.0)
        if ratio > max(FAR, FARTHER * first.get(key, 0.0)):
            times = "do not vary at all" if ratio == math.inf else f"lie {ratio:.0f} times closer together than to 0"
            return (
                f"The {name} of all images {times}: every image gets the same answer.",
                f"Lower --lr, lengthen --warmup, and give {context.spread}.",
            )
    return None


FLAT, ONE = 0.15, 1.5
"""Effective rank of features as a share of the first one, and of embeddings, below which dimensions have collapsed."""


def _dimensional_collapse(rows: Sequence[Row], context: Context) -> Said:
    """Features along hardly any direction, against those of the untrained encoder, or embeddings along one."""
    before, rank = (row.get("backbone_effective_rank", math.nan) for row in (rows[0], rows[-1]))
    narrow = rows[-1].get("projector_effective_rank", math.nan)
    # Scores of prototypes need no embeddings of many directions: in a healthy run DINO's have hardly more than one.
    if not (rank < FLAT * before or (narrow < ONE and not context.clusters)):
        return None
    where = "" if math.isnan(narrow) else f", embeddings along {narrow:.1f}"
    return (
        f"Features vary along about {rank:.1f} directions where those of {context.first} did along {before:.1f}"
        f"{where} (effective rank).",
        f"Lower --lr, and give {context.spread}.",
    )


SOLVED, FALLEN = 0.1, 0.5
"""Noise of views that counts as none, and rank as a share of the first that counts as falling."""


def _invariance_alone(rows: Sequence[Row], context: Context) -> Said:
    """Views agree, and images are told apart less and less."""
    place = "projector" if "projector_view_noise" in rows[-1] else "backbone"
    noise = rows[-1].get(f"{place}_view_noise", math.nan)
    before, rank = (row.get(f"{place}_effective_rank", math.nan) for row in (rows[0], rows[-1]))
    if not (noise < SOLVED and rank < FALLEN * before):
        return None
    return (
        f"Views of an image agree (they differ by {noise:.0%} of the variance), but what is left varies along "
        f"{rank:.1f} directions, {before:.1f} at first.",
        f"Give {context.spread}; stronger augmentation (--crop-scale, --view-recipe) makes agreement harder.",
    )


_COLLAPSES = {
    TO_MEAN_DIRECTION: _mean_direction,
    NEVER_VARIED: _never_varied,
    TO_CONSTANT: _constant,
    DIMENSIONAL: _dimensional_collapse,
    INVARIANCE_ALONE: _invariance_alone,
}
"""States of which only the most complete, the first that applies, is told."""

LEVEL, STILL = 0.02, 8
"""Distance of the loss to ln K, as a share, and for how many rows, that make a plateau."""


def _plateau(rows: Sequence[Row], context: Context) -> Said:
    """A loss that stays at the logarithm of the number of prototypes."""
    if not context.clusters or len(rows) < STILL:
        return None
    level = math.log(context.clusters)
    if any(abs(row["loss"] - level) > LEVEL * level for row in rows[-STILL:]):
        return None
    return (
        f"The loss stays at {level:.2f}, the logarithm of the {context.clusters:,} prototypes: every image is given to "
        "all of them alike.",
        f"Sharpen the targets: {context.spread}; lower --temperature or --student-temperature if it was raised.",
    )


IGNORED = 0.25
"""Variance of a view over that of the average view, below which it says nothing."""


def _view_ignored(rows: Sequence[Row], context: Context) -> Said:
    """A view that is the same for every image."""
    least = min(rows[-1].get(f"{place}_least_view", math.inf) for place in PLACES)
    if least >= IGNORED:
        return None
    return (
        f"The features of one view vary {least:.1%} as much as those of the average view: it is nearly the same for "
        "every image.",
        "Look at the views in the report or in TensorBoard and mend the --view-recipe.",
    )


ALIKE = 0.2
"""Noise of the views of the untrained encoder below which augmentation changes too little."""


def _weak_augmentation(rows: Sequence[Row], context: Context) -> Said:
    """Views that are alike before anything was learned."""
    noise = rows[0].get("backbone_view_noise", math.inf)
    if not noise < ALIKE:
        return None
    return (
        f"To {context.first} views of an image differ by {noise:.0%} of what images differ by: there is nothing "
        "to become invariant to.",
        "Use a stronger --view-recipe, or smaller crops: --crop-scale 0.2 1.",
    )


GROWN = 500.0
"""How many times their first variance embeddings have where steps are too long."""


def _learning_rate_too_high(rows: Sequence[Row], context: Context) -> Said:
    """Embeddings that grow out of all proportion."""
    place = "projector" if "projector_variance" in rows[-1] else "backbone"
    then, *later = (row.get(f"{place}_variance", math.nan) for row in rows if row["step"] <= EARLY)
    now = max(later, default=then)
    if not now > GROWN * then:
        return None
    return (
        f"The variance of the embeddings grew to {now / then:,.0f} times what it was at the start.",
        "Divide --lr by 10, or lengthen --warmup; --clip 1 helps against single steps.",
    )


LOUD, SILENT = 100.0, 1e-6
"""One term over all others together, and norm of the gradient, that say that a scale is wrong."""
_NO_TERMS = {"kind", "loss", "grad_norm", "step", "epoch", "images", "seconds"}


def _loss_scale(rows: Sequence[Row], context: Context) -> Said:
    """A gradient of nothing, or a term that drowns the others."""
    row = rows[-1]
    norm = row.get("grad_norm", math.inf)
    if norm < SILENT:
        words = f"The norm of the gradient is {norm:.1g}: nothing is learned."
        return words, "Raise --scale or the weights of the loss, or --lr."
    terms = {k: abs(v) for k, v in row.items() if k not in _NO_TERMS and k.partition("_")[0] not in PLACES}
    loudest = max(terms, key=lambda name: terms[name], default="")
    most = terms.pop(loudest, 0.0)
    rest = sum(terms.values())
    if not 0 < LOUD * rest < most:
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
