"""The verdict: an encoder beside its controls, the same architecture untrained and the raw pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from frossl.core.types import Features
from frossl.data.types import Dataset
from frossl.evals import METRICS, measure
from frossl.evals.augmented import augmented_linear
from frossl.evals.extract import Extractor, pixels
from frossl.evals.linear import DRAWS
from frossl.nn.encoder import EncoderSpec
from frossl.views.recipes import Recipe, pair

PROTOCOLS = ("knn", "linear", "fewshot", "rank", "alignment")
"""What is measured by default."""
AUGMENTED = "linear-augmented"
"""The paper's own linear probe, which sees augmented images and takes an hour where the others take a minute."""

HEADINGS = {
    "knn": "kNN",
    "linear": "linear",
    "linear_10": "10 labels",
    "linear_1pct": "1 % labels",
    "linear_10pct": "10 % labels",
    "linear_augmented": "linear (aug.)",
    "ridge": "ridge",
    "retrieval_map": "mAP",
    "recall_at_1": "recall@1",
    "cluster_accuracy": "clusters",
    "cluster_nmi": "NMI",
    "effective_rank": "rank",
    "rankme": "RankMe",
    "power_law_exponent": "exponent",
    "lidar": "LiDAR",
    "alignment": "align.",
    "uniformity": "unif.",
}


@dataclass(frozen=True)
class Evaluation:
    """Values of every arm; ``protocols`` says in one line each how they came about."""

    arms: dict[str, dict[str, float]]
    protocols: dict[str, str]
    held_out: int

    def headings(self) -> dict[str, str]:
        """Columns of the table: those values that some arm has, except spreads, which stand beside their means."""
        have = {name for values in self.arms.values() for name in values}
        return {name: heading for name, heading in HEADINGS.items() if name in have}


def evaluate(
    encoder: nn.Module,
    spec: EncoderSpec,
    data: Dataset,
    extractor: Extractor,
    *,
    seed: int,
    recipe: Recipe,
    untrained: nn.Module | None = None,
    protocols: tuple[str, ...] = PROTOCOLS,
    log: Callable[[str], None] = lambda message: None,
) -> Evaluation:
    """Measures ``encoder``, the untrained encoder of the same ``seed`` (or ``untrained``), and raw pixels.

    The untrained encoder gets batch-norm statistics from one pass over the training images. Without labels there
    are only figures that need none, and no accuracy is made up; raw pixels have no views and no rank to compare.
    """
    names = [name for name in protocols if name != AUGMENTED]
    for name in names:
        METRICS[name]
    arms: dict[str, dict[str, float]] = {}

    def arm(name: str, features: Callable[[], Features], network: nn.Module | None) -> None:
        log(f"evaluating {name}")
        got = measure(features(), [n for n in names if network is not None or METRICS[n].needs_labels])
        if AUGMENTED in protocols and network is not None and data.classes:
            got["linear_augmented"] = augmented_linear(network, spec, data, extractor, seed=seed)
        arms[name] = got

    views = (pair(recipe), seed) if {"alignment", "lidar"} & set(protocols) else None
    arm("pretrained", lambda: extractor.data(encoder, data, spec, views), encoder)
    untrained = (untrained or untrained_encoder(spec, seed)).to(extractor.device)
    extractor.settle_batch_norm(untrained, data.train, spec)
    arm("untrained", lambda: extractor.data(untrained, data, spec, views), untrained)
    if data.classes:
        arm("raw pixels", lambda: pixels(data, spec), None)
    described = {n: METRICS[n].protocol for n in names if data.classes or not METRICS[n].needs_labels}
    if AUGMENTED in protocols and data.classes:
        described[AUGMENTED] = augmented_linear.__doc__.splitlines()[0]  # type: ignore[union-attr]
    held_out = len(data.test) if data.test.labels is None else int((data.test.labels >= 0).sum())
    return Evaluation(arms, described, held_out)


def untrained_encoder(spec: EncoderSpec, seed: int) -> nn.Module:
    """The encoder that a run with ``seed`` starts from, in eval mode; torch's generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return spec.build().to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def verdict(evaluation: Evaluation) -> str:
    """One sentence on whether pretraining helped, against the better control, as far as the held-out images tell."""
    pretrained = evaluation.arms["pretrained"]
    controls = [values for name, values in evaluation.arms.items() if name != "pretrained"]
    parts = []
    better = worse = 0
    for name in ("knn", "linear", "linear_10", "linear_augmented"):
        if name not in pretrained:
            continue
        control = max(values[name] for values in controls)
        gain = pretrained[name] - control
        # Two standard errors: of a share of the held-out images, and over draws where there are draws.
        share = min(max(pretrained[name], 0.01), 0.99)
        variance = share * (1 - share) / evaluation.held_out + pretrained.get(f"{name}_std", 0.0) ** 2 / DRAWS
        noise = 2 * math.sqrt(2 * variance)
        better, worse = better + (gain > noise), worse + (gain < -noise)
        unsure = "" if abs(gain) > noise else ", within noise"
        parts.append(f"{HEADINGS[name]} {100 * gain:+.1f} points{unsure}")
    if not parts:
        rank, before = pretrained.get("effective_rank"), evaluation.arms["untrained"].get("effective_rank")
        if rank is None or before is None:
            return "Nothing was measured that says whether pretraining helped."
        if "raw pixels" in evaluation.arms:
            return (
                f"Effective rank {rank:.1f} (untrained {before:.1f}); measure knn or linear to know whether it helps."
            )
        state = "COLLAPSED: the features vary along hardly any direction" if rank < 2 else "not collapsed"
        return (
            f"No labels, so no accuracy. The encoder is {state}: effective rank {rank:.1f} "
            f"(untrained {before:.1f}). Whether it helps a task can only be told with labels."
        )
    if better and worse:
        head = "Pretraining helped in one way and did harm in another"
    elif better:
        head = "Pretraining helped" if better == len(parts) else "Pretraining helped in part"
    else:
        head = "Pretraining did harm" if worse else "Pretraining made no clear difference"
    return f"{head}: against the better control, {'; '.join(parts)}."
