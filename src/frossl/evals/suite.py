"""The verdict: an encoder beside its controls, the same architecture untrained and the raw pixels."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import nn

from frossl.data.types import Dataset
from frossl.evals import ENCODER_METRICS, METRICS, Subject, find_metric, measure
from frossl.evals.extract import PIXELS, Extractor, pixels
from frossl.evals.linear import DRAWS
from frossl.nn.encoder import EncoderSpec
from frossl.views.recipes import Recipe, pair

PROTOCOLS = ("knn", "linear", "fewshot", "rank", "alignment")
"""What is measured by default."""
ARMS = {
    "untrained": "same architecture and seed, batch-norm statistics from one pass over the training images",
    "supervised": "same architecture, seed, views, steps, optimiser and rate, with the labels of the run's own data",
    "raw pixels": f"no encoder, at most {PIXELS} pixels on a side",
}
"""What stands beside the pretrained encoder."""
CONTROLS = ("untrained", "raw pixels")
"""What pretraining must beat to be worth it; the supervised arm is no control but what labels would give."""

HEADINGS = {
    "knn": "kNN",
    "linear": "linear",
    "linear_1": "1 label",
    "linear_5": "5 labels",
    "linear_10": "10 labels",
    "linear_20": "20 labels",
    "linear_1pct": "1 % labels",
    "linear_10pct": "10 % labels",
    "linear_augmented": "linear (aug.)",
    "finetune": "fine-tuned",
    "finetune_10pct": "fine-t. 10 %",
    "finetune_1pct": "fine-t. 1 %",
    "ridge": "ridge",
    "retrieval_map": "mAP",
    "recall_at_1": "recall@1",
    "cluster_accuracy": "clusters",
    "cluster_nmi": "NMI",
    "cluster_ari": "ARI",
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
    source: str = ""
    """where the images are from: the name of a data set or a path; older files do not say"""

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
    others: Mapping[str, nn.Module] = MappingProxyType({}),
    known: Mapping[str, dict[str, float]] = MappingProxyType({}),
    protocols: tuple[str, ...] = PROTOCOLS,
    source: str = "",
    log: Callable[[str], None] = lambda message: None,
    keep: Callable[[Evaluation], None] = lambda evaluation: None,
) -> Evaluation:
    """Measures ``encoder``, the untrained encoder of the same ``seed`` (or ``untrained``), ``others``, and raw pixels.

    The untrained encoder gets batch-norm statistics from one pass over the training images. Without labels there
    are only figures that need none, and no accuracy is made up; raw pixels have no views and no rank to compare.
    Figures that are not finite, as of features that overflow, are left out. Arms that are ``known`` are taken as they
    are given. ``keep`` gets what there is after each arm, from the untrained one on, as an arm may take hours.
    """
    chosen = {name: find_metric(name) for name in protocols}
    chosen = {name: m for name, m in chosen.items() if data.classes or not m.needs_labels}
    untrained = (copy.deepcopy(untrained) or untrained_encoder(spec, seed)).to(extractor.device)
    if "untrained" not in known:
        extractor.each(lambda: extractor.settle_batch_norm(untrained, data.train, spec))
    networks = {"pretrained": encoder, "untrained": untrained, **others}
    subjects = {arm: (network, spec) for arm, network in networks.items()}
    if data.classes:
        subjects["raw pixels"] = pixels(spec)
    views = (pair(recipe), seed) if {"alignment", "lidar"} & set(chosen) else None
    held_out = len(data.test) if data.test.labels is None else int((data.test.labels >= 0).sum())
    evaluation = Evaluation({}, {name: m.protocol for name, m in chosen.items()}, held_out, source)

    def measured(arm: str) -> dict[str, float]:
        log(f"evaluating {arm}")
        (network, fed), has_views = subjects[arm], arm in networks
        names = [name for name, m in chosen.items() if has_views or m.of_pixels]
        of_features = [name for name in names if name in METRICS]
        values: dict[str, float] = {}
        if of_features:
            features = extractor.data(network, data, fed, views if has_views else None)
            values = extractor.each(lambda: measure(features, of_features))
        subject = Subject(network, fed, data, extractor, recipe, seed, lambda text: log(f"{arm}: {text}"))
        for name in names:
            if name in ENCODER_METRICS:
                values |= ENCODER_METRICS[name].measure(subject)
        return {name: value for name, value in values.items() if math.isfinite(value)}

    for arm in subjects:
        evaluation.arms[arm] = dict(known[arm]) if arm in known else measured(arm)
        if "untrained" in evaluation.arms:
            keep(evaluation)
    return evaluation


def untrained_encoder(spec: EncoderSpec, seed: int) -> nn.Module:
    """The encoder that a run with ``seed`` starts from, in eval mode; torch's generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return spec.build().to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


COLLAPSED, CLOSE = 2.0, 0.25
"""Effective rank below which features vary along hardly any direction; share of what there could be that is few."""


def collapsed(rank: float, images: int) -> bool:
    """Whether ``images`` vary along hardly any direction; of less than nine, which span few, only if far below those.

    >>> collapsed(1.2, 1000), collapsed(1.2, 3), collapsed(0.0, 3)
    (True, False, True)
    """
    return rank < min(COLLAPSED, CLOSE * (images - 1))


ALIKE = (
    "Not even features of the untrained encoder vary: the images are all alike, or it answers with a constant from the "
    "start. Look at the images; what lies in a narrow part of the range of intensities is lost in 8 bits."
)
"""Said where the effective rank is 0 before training and after it, for which training is not to blame."""


def near_collapse(rank: float, untrained: float) -> bool:
    """Whether training left less than :data:`CLOSE` of the effective rank that there was."""
    return rank < CLOSE * untrained


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
    """One sentence on whether pretraining helped, against the better control, as far as the held-out images tell."""
    pretrained = evaluation.arms["pretrained"]
    controls = [evaluation.arms[name] for name in CONTROLS if name in evaluation.arms]
    parts = []
    better = worse = harm = 0
    for name in ("knn", "linear", "linear_10", "linear_augmented", "finetune", "finetune_10pct", "finetune_1pct"):
        measured = [values[name] for values in controls if name in values]
        if name not in pretrained or not measured:
            continue
        control = max(measured)
        gain = pretrained[name] - control
        untrained = evaluation.arms.get("untrained", {}).get(name, 0.0)
        clear, harmed = (
            _clearly(pretrained[name], other, evaluation.held_out, pretrained.get(f"{name}_std", 0.0))
            for other in (control, untrained)
        )
        better, worse, harm = better + (clear > 0), worse + (clear < 0), harm + (harmed < 0)
        unsure = "" if clear else ", within noise"
        parts.append(f"{HEADINGS[name]} {100 * gain:+.1f} points{unsure}")
    if not parts:
        rank, before = pretrained.get("effective_rank"), evaluation.arms["untrained"].get("effective_rank")
        if "raw pixels" in evaluation.arms:
            said = "" if rank is None or before is None else f"Effective rank {rank:.1f} (untrained {before:.1f}). "
            return (
                f"{said}Whether pretraining helped is judged by knn, linear, fewshot and finetune: measure one of them."
            )
        if rank is None or before is None:
            return "Nothing measured says whether pretraining helped; without labels, accuracies are left out."
        if rank == before == 0:
            return f"No labels, so no accuracy. {ALIKE}"
        state = "not collapsed"
        if near_collapse(rank, before):
            state = "close to collapse: the features vary along few directions"
        if collapsed(rank, evaluation.held_out):
            state = "COLLAPSED: the features vary along hardly any direction"
        return (
            f"No labels, so no accuracy. The encoder is {state}: effective rank {rank:.1f} "
            f"(untrained {before:.1f}). Whether it helps a task can only be told with labels."
        )
    short = "did harm" if harm else "fell short of raw pixels"
    if better and worse:
        head = f"Pretraining helped in one way and {short} in another"
    elif better:
        head = "Pretraining helped" if better == len(parts) else "Pretraining helped in part"
    else:
        head = f"Pretraining {short}" if worse else "Pretraining made no clear difference"
    return f"{head}: against the better control, {'; '.join(parts)}."
