"""The sentences of a report: the verdict, and a glossary."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from frossl.core.length import Length
from frossl.evals import in_order
from frossl.evals.suite import START, Evaluation
from frossl.evals.verdict import COLLAPSES, NEVER_VARIED, STATES, outcome, rank_state, reference, verdict
from frossl.nn.encoder import OWN
from frossl.report.table import minus
from frossl.runs.directory import resume_command
from frossl.runs.record import Record

FEW_EPOCHS, TO_EPOCHS = 50, 100
"""A run of fewer epochs that made no difference is advised to train on, and to how many."""


@dataclass(frozen=True)
class Verdict:
    """``mood`` is good, mixed, bad or unknown; ``more`` are sentences below the headline."""

    mood: str
    headline: str
    more: tuple[str, ...]


def judge(record: Record, rank: float | None, untrained: float | None = None) -> Verdict:
    """Collapse before everything else, then the findings of the health monitor, then the evaluation.

    Features of a single direction that separate classes better than the controls, as two classes need no more, are not
    collapsed. ``rank`` and ``untrained`` are effective ranks of held-out features, if the evaluation has none.
    """
    evaluation, images, known = record.evaluation, record.about["images"][1], "untrained"
    found = sorted(record.standing, key=lambda row: row["state"] not in COLLAPSES)
    seen = tuple(f"{row['state']}: {row['message']} {row['remedy']}" for row in found)
    gains, measured = None, ()
    if evaluation is not None:
        rank = evaluation.arms["pretrained"].get("effective_rank", rank)
        known = reference(evaluation.arms)
        untrained = evaluation.arms.get(known, {}).get("effective_rank", untrained)
        images, gains = evaluation.held_out, outcome(evaluation)
        if gains is not None:
            against = minus(f"Against {gains.against}, {gains.gains}.")
            measured = (against, *map(minus, gains.notes), *beside_untrained(evaluation))
    state, ranks = "", ()
    if rank is not None and images > 1:  # a single image varies along no direction whatever the encoder
        state = rank_state(rank, untrained, images)
        ranks = (describe_rank(rank, record.about["encoder"]["features"], images, untrained, known),)
    if state == NEVER_VARIED:
        return Verdict("bad", state, (STATES[state], *ranks))
    if gains is not None and gains.helped:
        still = (f"The health monitor still says: {text}" for text in seen)
        return Verdict(gains.mood, gains.headline, (*measured, *ranks, *still))
    if state == "Collapsed":
        advice = ("Do not use this encoder.", *(seen or (_ADVICE,)))
        return Verdict("bad", state, (STATES[state], *ranks, *measured, *advice))
    if found:
        state, first = found[0]["state"], f"{found[0]['message']} {found[0]['remedy']}"
        return Verdict("bad", state, (first, *seen[1:], *ranks, *measured))
    if gains is not None:
        return Verdict(gains.mood, gains.headline, (*measured, *ranks, *train_on(record, evaluation)))
    if evaluation is None:
        advice = f"No evaluation yet. To compare it with an untrained encoder: frossl evaluate {record.path}"
        return Verdict("unknown", "Not evaluated", (*ranks, advice))
    if not state:
        return Verdict("unknown", "Nothing to judge by", (verdict(evaluation),))
    why = "No accuracy was measured" if "raw pixels" in evaluation.arms else "There are no labels"
    more = (*ranks, f"{why}, so whether pretraining helps a task is unknown.")
    return Verdict("bad" if state == "Close to collapse" else "unknown", state, more)


def train_on(record: Record, evaluation: Evaluation | None) -> tuple[str, ...]:
    """How to train on, where pretraining did not clearly help and the run saw few epochs; else nothing.

    Nothing either where training longer is no remedy: after a collapse or another finding of the health monitor, and
    where a published encoder got worse.
    """
    found = evaluation and outcome(evaluation)
    if not evaluation or not found or found.helped or record.standing or not record.train:
        return ()
    arms, epochs = evaluation.arms, record.end["epoch"]
    rank, before = (arms.get(arm, {}).get("effective_rank") for arm in ("pretrained", reference(arms)))
    collapsed = rank is not None and rank_state(rank, before, evaluation.held_out) in ("Collapsed", NEVER_VARIED)
    if collapsed or not 0 < epochs < FEW_EPOCHS or (START in arms and found.mood == "bad"):
        return ()
    length = Length.parse(record.config["length"])
    amount = TO_EPOCHS if length.unit == "ep" else math.ceil(length.amount * TO_EPOCHS / epochs)
    how = f"{resume_command(record.path)} --length {amount}{length.unit}"
    if record.about["encoder"]["backbone"].startswith(OWN):
        how = f"frossl.pretrain(resume={str(record.path)!r}, backbone=..., length='{amount}{length.unit}') in Python"
    saw = f"{epochs:.3g} {'epoch' if epochs == 1 else 'epochs'}"
    return (f"The run saw {saw}, which is few. To train on: {how}",)


_ADVICE = (
    "Try a lower learning rate, a longer warm-up, a larger batch or a smaller weight of the invariance term, and watch "
    "the effective rank from the start."
)


def beside_untrained(evaluation: Evaluation) -> tuple[str, ...]:
    """The gain over the untrained encoder, where raw pixels are the better control; nothing beside a start."""
    if START in evaluation.arms:
        return ()
    pretrained, untrained = evaluation.arms["pretrained"], evaluation.arms["untrained"]
    pixels = evaluation.arms.get("raw pixels", {})
    scored = {name: column for name, column in evaluation.columns().items() if column.score}
    both = {name: column for name, column in scored.items() if name in pretrained and name in untrained}
    if not any(pixels.get(name, 0.0) > untrained[name] for name in both):
        return ()
    gains = "; ".join(f"{c.title} {100 * (pretrained[n] - untrained[n]):+.1f} points" for n, c in both.items())
    return (f"The better control is not always the untrained encoder; against that alone: {minus(gains)}.",)


def describe_rank(rank: float, width: int, images: int, before_it: float | None, arm: str = "untrained") -> str:
    """The effective rank of ``images`` with that of an ``arm`` to compare it with."""
    name = "the start" if arm == START else "the untrained encoder"
    before = "" if before_it is None else f"; {name}: {before_it:.1f}"
    if rank == 0:
        return f"The features do not vary at all (effective rank 0){before}."
    most = f"{width:,} directions"
    if images <= width:
        most = f"the {images - 1:,} directions that {images:,} images can show"
    return f"The features vary along about {rank:.1f} of {most} (effective rank){before}."


GLOSSARY = {
    "Encoder, backbone": "The network that turns an image into a list of numbers, its features. It is what you keep.",
    "Pretraining": "Training the encoder on images alone: views of one image shall have like features, and the "
    "features of all images together shall not shrink to a few directions.",
    "View": "A random crop of an image with changed colours. The encoder sees several views of every image.",
    "Held-out images": "Images that were kept aside. Every accuracy and rank is measured on them.",
    "Untrained": "The same encoder with its random first weights. Pretraining is only worth its time if it beats this.",
    "Start": "The published encoder that training began with, as it was. Continuing is only worth its time if it beats "
    "this.",
    "Raw pixels": "The images themselves as features, with no encoder at all. The other control.",
    "Largest class, training mean, label shares": "The best answer that looks at no image. A score that is not above "
    "it says nothing, however high it is.",
    "Balanced accuracy": "The mean over classes of the share of their images that is right: every class counts the "
    "same. A guess gets 1 of the number of classes. Shown, and decisive, where classes are uneven.",
    "Supervised": "The same encoder trained with the labels, in as many steps: what labels would have given. It is not "
    "something pretraining must beat.",
    "Eigenvalue spectrum": "How the variance is shared out over directions, largest first. A curve that falls at once "
    "means few directions are used; a slow fall means many are.",
    "Collapse": "The failure in which every image gets the same features. The loss may look fine.",
    "Loss terms": "What is minimised, and the parts that add up to it. For FroSSL: entropy, which spreads features "
    "out, and invariance, which pulls views of an image together.",
    "Interval (±)": "95 %: if other held-out images had been drawn, and other labels where they are few, the value "
    "would usually lie within.",
    "Cosine similarity": "How alike two lists of numbers point: 1 the same way, 0 nothing in common.",
}


def glossary(evaluations: Iterable[Evaluation]) -> dict[str, str]:
    """:data:`GLOSSARY` and the terms of metrics, without those of optional arms and metrics that were not measured."""
    there = {name for e in evaluations for name in (*e.arms, *e.protocols)}
    missing = {"supervised", START} - there
    terms = {term: meaning for term, meaning in GLOSSARY.items() if term.lower() not in missing}
    for name, m in in_order().items():
        if name in there or "evaluate" in m.default_of:
            terms |= m.glossary
    return terms


def duplicates_warning(same: int, of: int, correlation: float) -> str:
    """A warning about nearly identical images in both splits; empty if there are none."""
    if not same:
        return ""
    return (
        f"{same:,} of {of:,} held-out images are nearly the same picture as a training image (correlation of pixels "
        f"{correlation} or more). Copies, or frames of one video, burst or patient on both sides, make accuracies too "
        "high: look at the pairs in the report, and hold out whole groups with --group"
    )
