"""What a report says in words: the verdict, and what its terms mean."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from frossl.evals.linear import DRAWS
from frossl.evals.suite import ALIKE, Evaluation, collapsed, near_collapse, verdict
from frossl.runs.record import Record

ACCURACIES = {
    "knn": "kNN",
    "linear": "linear probe",
    "linear_10": "10 labels per class",
    "linear_1": "1 label per class",
    "linear_5": "5 labels per class",
    "linear_20": "20 labels per class",
    "linear_1pct": "1 % of the labels",
    "linear_10pct": "10 % of the labels",
    "linear_augmented": "linear probe, augmented",
    "ridge": "ridge",
    "finetune": "fine-tuned",
    "finetune_10pct": "fine-tuned, 10 % of the labels",
    "finetune_1pct": "fine-tuned, 1 % of the labels",
}


@dataclass(frozen=True)
class Verdict:
    """``mood`` is good, mixed, bad or unknown; ``more`` are sentences below the headline."""

    mood: str
    headline: str
    more: tuple[str, ...]


_MOODS = {
    "Pretraining helped": "good",
    "Pretraining helped in part": "mixed",
    "Pretraining helped in one way and did harm in another": "mixed",
    "Pretraining helped in one way and fell short of raw pixels in another": "mixed",
    "Pretraining made no clear difference": "unknown",
    "Pretraining fell short of raw pixels": "bad",
    "Pretraining did harm": "bad",
}


def judge(record: Record, rank: float | None, untrained: float | None = None) -> Verdict:
    """Collapse before everything else, then what the health monitor found, then what the evaluation says.

    Features of a single direction that tell classes apart better than the controls, as of two classes, are not
    collapsed. ``rank`` and ``untrained`` are effective ranks of held-out features, for where the evaluation has none.
    """
    evaluation, width = record.evaluation, record.about["encoder"]["features"]
    if evaluation is not None:
        rank = evaluation.arms["pretrained"].get("effective_rank", rank)
        untrained = evaluation.arms.get("untrained", {}).get("effective_rank", untrained)
    images = record.about["images"][1] if evaluation is None else evaluation.held_out
    if images < 2:  # which vary along no direction whatever the encoder
        rank = untrained = None
    sentence = None if evaluation is None else verdict(evaluation)
    found = sorted(record.standing, key=lambda row: "ollapse" not in row["state"])
    seen = tuple(f"{row['state']}: {row['words']} {row['knob']}" for row in found)
    head, _, rest = (sentence or "").partition(": ")
    ranks = () if rank is None else (describe_rank(rank, width, images, untrained),)
    if rank == untrained == 0:
        return Verdict("bad", "Features never varied", (ALIKE, *ranks))
    if rank is not None and collapsed(rank, images) and not head.startswith("Pretraining helped"):
        advice = seen or (
            "Try a lower learning rate, a longer warm-up, a larger batch or a smaller weight of the invariance term, "
            "and watch the effective rank from the start.",
        )
        measured = () if sentence is None or sentence.startswith("No labels") else (minus(sentence),)
        return Verdict("bad", "Collapsed", (_COLLAPSE, *ranks, *measured, "Do not use this encoder.", *advice))
    if found and not head.startswith("Pretraining helped"):
        first = found[0]
        said = (f"{first['words']} {first['knob']}", *seen[1:])
        measured = () if sentence is None or sentence.startswith("No labels") else (minus(sentence),)
        return Verdict("bad", first["state"], (*said, *ranks, *measured))
    if evaluation is None or sentence is None:
        advice = f"No evaluation yet. To compare it with an untrained encoder: frossl evaluate {record.path}"
        return Verdict("unknown", "Not evaluated", (*ranks, advice))
    if head in _MOODS:
        said = (minus(rest[:1].upper() + rest[1:]), *beside_untrained(evaluation), *ranks)
        return Verdict(_MOODS[head], head, (*said, *(f"The health monitor still says: {text}" for text in seen)))
    if rank is None:
        return Verdict("unknown", "Nothing to judge by", (sentence,))
    why = "No accuracy was measured" if "raw pixels" in evaluation.arms else "There are no labels"
    mood, state = (
        ("bad", "Close to collapse") if near_collapse(rank, untrained or 0.0) else ("unknown", "Not collapsed")
    )
    return Verdict(mood, state, (*ranks, f"{why}, so whether pretraining helps a task cannot be told."))


_COLLAPSE = "The encoder gives nearly the same answer, up to one number, for every image."


def beside_untrained(evaluation: Evaluation) -> tuple[str, ...]:
    """What pretraining did to the encoder itself, where raw pixels are the better control."""
    pretrained, untrained = evaluation.arms["pretrained"], evaluation.arms["untrained"]
    pixels = evaluation.arms.get("raw pixels", {})
    names = [name for name in ACCURACIES if name in pretrained and name in untrained]
    if not any(pixels.get(name, 0.0) > untrained[name] for name in names):
        return ()
    gains = "; ".join(f"{ACCURACIES[n]} {100 * (pretrained[n] - untrained[n]):+.1f} points" for n in names)
    return (f"The better control is not always the untrained encoder; against that alone: {minus(gains)}.",)


def minus(text: str) -> str:
    """Hyphens before numbers as minus signs.

    >>> minus("-0.5, kNN -2.7 points, a-1")
    '−0.5, kNN −2.7 points, a-1'
    """
    return re.sub(r"(?<!\S)-(?=\d)", "−", text)


def describe_rank(rank: float, width: int, images: int, untrained: float | None) -> str:
    """The effective rank of ``images`` with something to compare it with."""
    before = "" if untrained is None else f"; the untrained encoder: {untrained:.1f}"
    if rank == 0:
        return f"The features do not vary at all (effective rank 0){before}."
    most = (
        f"{width:,} directions" if images > width else f"the {images - 1:,} directions that {images:,} images can show"
    )
    return f"The features vary along about {rank:.1f} of {most} (effective rank){before}."


@dataclass(frozen=True)
class Arm:
    """What was measured of one set of features; ``run`` is whose they are, or every run's."""

    run: str
    name: str
    values: dict[str, float]
    held_out: int

    def margin(self, name: str) -> float:
        """Half the width of a 95 % interval: the measured one if there is one, else of a share of so many images.

        For few labels the spread over draws is added.
        """
        if f"{name}_low" in self.values:
            return (self.values[f"{name}_high"] - self.values[f"{name}_low"]) / 2
        share = min(max(self.values[name], 0.01), 0.99)
        variance = share * (1 - share) / max(self.held_out, 1) + self.values.get(f"{name}_std", 0.0) ** 2 / DRAWS
        return 1.96 * math.sqrt(variance)


def arms_of(evaluations: Sequence[tuple[str, Evaluation]]) -> list[Arm]:
    """The arms of all runs; a control that has the same values for every run stands once, at the end."""
    arms = [Arm(run, name, values, e.held_out) for run, e in evaluations for name, values in e.arms.items()]
    same = [a for a in arms if a.name != "pretrained" and all(e.arms.get(a.name) == a.values for _, e in evaluations)]
    if len(evaluations) == 1:
        return arms
    once = {a.name: replace(a, run="every run") for a in same}
    return [a for a in arms if a.name not in once] + list(once.values())


GLOSSARY = {
    "Encoder, backbone": "The network that turns an image into a list of numbers, its features. It is what you keep.",
    "Pretraining": "Training the encoder on images alone: views of one image shall have like features, and the "
    "features of all images together shall not shrink to a few directions.",
    "View": "A random crop of an image with changed colours. The encoder sees several views of every image.",
    "Held-out images": "Images that were kept aside. Every accuracy and rank is measured on them.",
    "Untrained": "The same encoder with its random first weights. Pretraining is only worth its time if it beats this.",
    "Raw pixels": "The images themselves as features, with no encoder at all. The other control.",
    "Supervised": "The same encoder trained with the labels, in as many steps: what labels would have given. It is not "
    "something pretraining must beat.",
    "kNN": "The k nearest training images vote on the class of an image. Nothing is fitted: it asks whether images of "
    "a class lie together.",
    "Linear probe": "A linear classifier on the features: it asks whether classes can be told apart by simple rules.",
    "10 labels per class": "A linear classifier from ten labelled images per class: what you get if labels are scarce.",
    "Fine-tuned": "The encoder itself learns on from labels, all or a share of them: what it is worth as a start for "
    "training. For the untrained encoder that is training from scratch.",
    "Effective rank": "Along about how many directions the features vary, from 1 (collapsed) to the number of them. "
    "More is not always better, but near 1 nothing was learned.",
    "Eigenvalue spectrum": "How the variance is shared out over directions, largest first. A curve that falls at once "
    "means few directions are used; a slow fall means many are.",
    "Collapse": "The failure in which every image gets the same features. The loss may look fine.",
    "Loss terms": "What is minimised, and the parts that add up to it. For FroSSL: entropy, which spreads features "
    "out, and invariance, which pulls views of an image together.",
    "Alignment, uniformity": "How far apart the features of two views of an image are (lower is better), and how "
    "evenly features cover the sphere (lower is more even).",
    "Interval (±)": "95 %: if other held-out images had been drawn, the value would usually lie within.",
    "Cosine similarity": "How alike two lists of numbers point: 1 the same way, 0 nothing in common.",
}
_NOT_ALWAYS = {"Supervised": "supervised", "Fine-tuned": "finetune"}


def glossary(evaluations: Iterable[Evaluation]) -> dict[str, str]:
    """:data:`GLOSSARY`, of what is not always there only what ``evaluations`` have."""
    there = {name.partition("-")[0] for e in evaluations for name in (*e.arms, *e.protocols)}
    return {word: meaning for word, meaning in GLOSSARY.items() if _NOT_ALWAYS.get(word, "") in {"", *there}}
