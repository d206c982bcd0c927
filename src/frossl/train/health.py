"""What state a run is in, in words, and which knob to turn: rules over the rows ``vitals`` of its log.

Thresholds were set on one half of 40 runs and tried on the other (docs/results/health.md). Vitals are of views as
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

FAR, FARTHER = 5.0, 2.0
"""Mean over spread, as it is and over the first one, from which features are one point."""
FLAT, ONE = 0.15, 1.5
"""Effective rank of features as a share of the first one, and of embeddings, below which dimensions have collapsed."""
SOLVED, FALLEN = 0.1, 0.5
"""Noise of views that counts as none, and rank as a share of the first that counts as falling."""
GROWN, EARLY = 500.0, 500
"""How many times their first variance embeddings have where steps are too long, and up to which step that tells."""
NOTHING = 0.02
"""What is left of a term, as a share of the first, or of a loss, as a share of ln K, that counts as nothing."""
LEVEL, STILL = 0.02, 8
"""Distance of the loss to ln K, as a share, and for how many rows, that make a plateau."""
LOUD, SILENT = 100.0, 1e-6
"""One term over all others together, and norm of the gradient, that say that a scale is wrong."""
IGNORED = 0.25
"""Variance of a view over that of the average view, below which it says nothing."""
ALIKE = 0.2
"""Noise of the views of the untrained encoder below which augmentation changes too little."""

_SPREAD = {
    "frossl": "a smaller --invariance-weight and --centre",
    "emp_frossl": "a smaller --invariance-weight and --centre",
    "vicreg": "a larger --variance-weight (paper: 25)",
    "barlow": "a larger --off-diagonal-weight (paper: 0.005)",
    "ivne": "a larger --entropy-weight (paper: 1)",
    "lejepa": "a larger --weight (0.02)",
    "empssl": "a larger --coding-rate-weight",
    "corinfomax": "a smaller --invariance-weight",
    "simclr": "a --temperature of 0.1 to 0.5",
    "dcl": "a --temperature of 0.1 to 0.5",
    "mocov2plus": "a --temperature of 0.1 to 0.5",
    "byol": "a --momentum nearer 1",
    "dino": "a --centre-momentum of 0.9 and a --teacher-temperature of 0.04 to 0.07",
    "swav": "an --epsilon of 0.03 to 0.05",
}
"""By method, what keeps its features apart."""


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

    @property
    def spread(self) -> str:
        """What to turn so that features keep apart."""
        return _SPREAD.get(self.method, "more weight on the term of the loss that keeps features apart")


def diagnose(rows: Sequence[Row], context: Context) -> list[Finding]:
    """Findings at the newest of the rows ``vitals`` of one run, oldest first; none if all seems well.

    Rows that do not begin with the untrained encoder say nothing, as there is nothing to compare with. Of several
    collapses only the most complete is told.
    """
    if not rows or rows[0]["step"] > EARLY:
        return []
    collapse = next((f for rule in _COLLAPSES if (f := rule(rows, context))), None)
    return [f for f in (collapse, *(rule(rows, context) for rule in _OTHERS)) if f]


def collapse_to_mean_direction(rows: Sequence[Row], context: Context) -> Finding | None:
    """Entropy and invariance both gone: the solution that needs nothing from the image."""
    first, row = rows[0], rows[-1]
    gone = all(abs(row.get(k, math.inf)) < NOTHING * abs(first.get(k, 0)) for k in ("entropy", "invariance"))
    if not gone:
        return None
    return Finding(
        TO_MEAN_DIRECTION,
        f"Both terms of the loss are next to 0 (entropy {row['entropy']:.3g}, invariance {row['invariance']:.3g}): "
        "every embedding points the same way, which the loss allows and which needs nothing from the image.",
        "Turn on --centre, and lower --lr or --invariance-weight.",
    )


def collapse_to_constant(rows: Sequence[Row], context: Context) -> Finding | None:
    """Features or embeddings that are one point, or one prototype for all."""
    if context.clusters and rows[-1]["loss"] < NOTHING * math.log(context.clusters):
        return Finding(
            TO_CONSTANT,
            f"The loss is next to 0 ({rows[-1]['loss']:.2g}): every image is given to the same one of "
            f"{context.clusters:,} prototypes.",
            f"Give {context.spread}, and lower --lr.",
        )
    for place, name in (("backbone", "features"), ("projector", "embeddings")):
        first, ratio = (row.get(f"{place}_mean_to_spread", 0.0) for row in (rows[0], rows[-1]))
        ratio = math.inf if rows[-1].get(f"{place}_variance") == 0 else ratio
        if rows[0].get(f"{place}_variance") == 0:
            return Finding(
                NEVER_VARIED,
                never_varied(f"the {name}", "views"),
                "Look at the images and their views in the report.",
            )
        if ratio > max(FAR, FARTHER * first):
            times = "do not vary at all" if ratio == math.inf else f"lie {ratio:.0f} times closer together than to 0"
            return Finding(
                TO_CONSTANT,
                f"The {name} of all images {times}: every image gets the same answer.",
                f"Lower --lr, lengthen --warmup, and give {context.spread}.",
            )
    return None


def dimensional_collapse(rows: Sequence[Row], context: Context) -> Finding | None:
    """Features along hardly any direction, against those of the untrained encoder, or embeddings along one."""
    rank, before, narrow = (
        row.get(f"{place}_effective_rank", math.nan)
        for row, place in ((rows[-1], "backbone"), (rows[0], "backbone"), (rows[-1], "projector"))
    )
    # Scores of prototypes need no embeddings of many directions: in a healthy run DINO's have hardly more than one.
    if not (rank < FLAT * before or (narrow < ONE and not context.clusters)):
        return None
    where = "" if math.isnan(narrow) else f", embeddings along {narrow:.1f}"
    return Finding(
        DIMENSIONAL,
        f"Features vary along about {rank:.1f} directions where those of the untrained encoder did along {before:.1f}"
        f"{where} (effective rank).",
        f"Lower --lr, and give {context.spread}.",
    )


def invariance_alone(rows: Sequence[Row], context: Context) -> Finding | None:
    """Views agree, and images are told apart less and less."""
    place = "projector" if "projector_view_noise" in rows[-1] else "backbone"
    noise = rows[-1].get(f"{place}_view_noise", math.nan)
    rank, before = (row.get(f"{place}_effective_rank", math.nan) for row in (rows[-1], rows[0]))
    if not (noise < SOLVED and rank < FALLEN * before):
        return None
    return Finding(
        INVARIANCE_ALONE,
        f"Views of an image agree (they differ by {noise:.0%} of the variance), but what is left varies along "
        f"{rank:.1f} directions, {before:.1f} at first.",
        f"Give {context.spread}; stronger augmentation (--crop-scale, --view-recipe) makes agreement harder.",
    )


def plateau(rows: Sequence[Row], context: Context) -> Finding | None:
    """A loss that stays at the logarithm of the number of prototypes."""
    if not context.clusters or len(rows) < STILL:
        return None
    level = math.log(context.clusters)
    if any(abs(row["loss"] - level) > LEVEL * level for row in rows[-STILL:]):
        return None
    return Finding(
        "Plateau at ln K",
        f"The loss stays at {level:.2f}, the logarithm of the {context.clusters:,} prototypes: every image is given to "
        "all of them alike.",
        f"Sharpen the targets: {context.spread}; lower --temperature or --student-temperature if it was raised.",
    )


def view_ignored(rows: Sequence[Row], context: Context) -> Finding | None:
    """A view that is the same for every image."""
    least = min(rows[-1].get(f"{place}_least_view", math.inf) for place in ("backbone", "projector"))
    if least >= IGNORED:
        return None
    return Finding(
        "One view says nothing",
        f"The features of one view vary {least:.1%} as much as those of the average view: it is nearly the same for "
        "every image.",
        "Look at the views in the report or in TensorBoard and mend the --view-recipe.",
    )


def weak_augmentation(rows: Sequence[Row], context: Context) -> Finding | None:
    """Views that are alike before anything was learned."""
    noise = rows[0].get("backbone_view_noise", math.nan)
    if not noise < ALIKE:
        return None
    return Finding(
        "Augmentation is too weak",
        f"To the untrained encoder views of an image differ by {noise:.0%} of what images differ by: there is nothing "
        "to become invariant to.",
        "Use a stronger --view-recipe, or smaller crops: --crop-scale 0.2 1.",
    )


def learning_rate_too_high(rows: Sequence[Row], context: Context) -> Finding | None:
    """Embeddings that grow out of all proportion."""
    place = "projector" if "projector_variance" in rows[-1] else "backbone"
    then, *later = (row.get(f"{place}_variance", math.nan) for row in rows if row["step"] <= EARLY)
    now = max(later, default=then)
    if not now > GROWN * then:
        return None
    return Finding(
        "Learning rate too high",
        f"The variance of the embeddings grew to {now / then:,.0f} times what it was at the start.",
        "Divide --lr by 10, or lengthen --warmup; --clip 1 helps against single steps.",
    )


def loss_scale(rows: Sequence[Row], context: Context) -> Finding | None:
    """A gradient of nothing, or a term that drowns the others."""
    row = rows[-1]
    norm = row.get("grad_norm", math.inf)
    if norm < SILENT:
        words = f"The norm of the gradient is {norm:.1g}: nothing is learned."
        return Finding("Loss scale is wrong", words, "Raise --scale or the weights of the loss, or --lr.")
    terms = {k: abs(v) for k, v in row.items() if k not in _NO_TERMS and not k.startswith(("backbone_", "projector_"))}
    loudest = max(terms, key=lambda name: terms[name], default="")
    rest = sum(terms.values()) - terms.get(loudest, 0.0)
    if not 0 < LOUD * rest < terms.get(loudest, 0.0):
        return None
    return Finding(
        "Loss scale is wrong",
        f"The {loudest} term is {terms[loudest] / rest:,.0f} times as large as all others together, which count for "
        "nothing beside it.",
        f"Lower the weight of the {loudest} term.",
    )


_NO_TERMS = {"kind", "loss", "grad_norm", "step", "epoch", "images", "seconds"}
_COLLAPSES = (collapse_to_mean_direction, collapse_to_constant, dimensional_collapse, invariance_alone)
_OTHERS = (plateau, view_ignored, weak_augmentation, learning_rate_too_high, loss_scale)
