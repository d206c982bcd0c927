"""An encoder beside its controls: the same architecture untrained, and the raw pixels."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

import torch
from torch import nn

from frossl.core.device import fork_random
from frossl.core.types import Targets
from frossl.core.types import known as known_labels
from frossl.data.types import Dataset
from frossl.evals import Column, Subject, applicable, columns, measure, scores
from frossl.evals.balanced import uneven
from frossl.evals.extract import EVALUATED, PIXELS, Extractor, first, on_device, pixels
from frossl.evals.guess import GUESSES, WORDS, guess
from frossl.evals.interval import collect_answers, pack_answers
from frossl.nn.encoder import EncoderSpec
from frossl.views.recipes import Recipe, pair

START = "start"
"""The arm of the encoder that training began with, where that was a published one."""
ARMS = {
    START: "the encoder that training began with, as it was published",
    "untrained": "same architecture and seed, batch-norm statistics from one pass over the training images",
    "averaged": "the moving average of the encoder that its method keeps, with batch-norm statistics of its own",
    "supervised": "same architecture, start, seed, views, steps and optimiser, with the labels of the run's own data",
    "raw pixels": f"no encoder, at most {PIXELS} pixels on a side",
    **WORDS,
}
"""What stands beside the pretrained encoder."""
CONTROLS = (START, "untrained", "raw pixels", *GUESSES.values())
"""What pretraining must beat to be worth it; the supervised arm is no control but what labels would give."""


@dataclass(frozen=True)
class Evaluation:
    """Values of every arm; ``protocols`` says in one line each how they came about."""

    arms: dict[str, dict[str, float]]
    protocols: dict[str, str]
    held_out: int
    source: str = ""
    """where the images are from: the name of a data set or a path; older files do not say"""
    targets: Targets | None = None
    """what the labels are"""
    answers: dict[str, dict[str, str]] = field(default_factory=dict)
    """by arm and accuracy, which labelled held-out images were answered right (:func:`unpack_answers`); not of arms
    that another run measured"""

    @property
    def uneven(self) -> bool:
        """Whether the largest class has so many of the held-out images that balanced accuracies decide."""
        shares = self.arms.get(GUESSES["classes"], {})
        pairs = [(share, shares[f"{name}_balanced"]) for name, share in shares.items() if f"{name}_balanced" in shares]
        return any(uneven(share, even) for share, even in pairs)

    def columns(self) -> dict[str, Column]:
        """Every value that is shown: balanced accuracies only where classes are uneven, as else they say the same."""
        return {n: c for n, c in columns().items() if self.uneven or c.score != "balanced accuracy"}

    def shown(self) -> dict[str, dict[str, float]]:
        """The arms without values of columns that are not shown."""
        hidden = columns().keys() - self.columns().keys()
        return {arm: {n: v for n, v in values.items() if n not in hidden} for arm, values in self.arms.items()}


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
    protocols: tuple[str, ...],
    source: str = "",
    bank: int = EVALUATED,
    log: Callable[[str], None] = lambda message: None,
    keep: Callable[[Evaluation], None] = lambda evaluation: None,
) -> Evaluation:
    """Measures ``encoder``, the untrained encoder of the same ``seed`` (or ``untrained``), ``others``, and raw pixels.

    The untrained encoder gets batch-norm statistics from one pass over the training images. Without labels there
    are only figures that need none, and no accuracy is made up; raw pixels have no views and no rank to compare.
    Figures that are not finite, as of features that overflow, are left out. Arms that are ``known`` are taken as they
    are given. Of more than ``bank`` training images so many are used, spread evenly, and protocols say so. ``keep``
    gets what there is after each arm, from the untrained one on, as an arm may take hours.
    """
    untrained = (copy.deepcopy(untrained) or untrained_encoder(spec, seed)).to(extractor.device)
    if "untrained" not in known:
        extractor.each(lambda: extractor.settle_batch_norm(untrained, first(data.train, bank), spec))
    networks = {"pretrained": encoder, "untrained": untrained, **others}
    subjects = {arm: (network, spec, recipe) for arm, network in networks.items()}

    def keep_both(evaluation: Evaluation) -> None:
        if "untrained" in evaluation.arms:
            keep(evaluation)

    how = {"seed": seed, "known": known, "protocols": protocols, "source": source, "bank": bank, "log": log}
    return measure_arms(subjects, data, extractor, keep=keep_both, **how)


def measure_arms(
    subjects: Mapping[str, tuple[nn.Module, EncoderSpec, Recipe]],
    data: Dataset,
    extractor: Extractor,
    *,
    seed: int,
    known: Mapping[str, dict[str, float]] = MappingProxyType({}),
    protocols: tuple[str, ...],
    source: str = "",
    bank: int = EVALUATED,
    log: Callable[[str], None] = lambda message: None,
    keep: Callable[[Evaluation], None] = lambda evaluation: None,
) -> Evaluation:
    """Measures encoders by arm, each fed as its spec says and with views of its recipe, then pixels and a guess.

    As :func:`evaluate`, but for the arms; ``keep`` gets what there is after each.
    """
    data, part = _with_bank(data, bank)
    chosen = applicable(protocols, data.targets)
    fed = next(iter(subjects.values()))
    controls = {"raw pixels": (*pixels(fed[1]), fed[2])} if data.targets else {}
    held_out = len(data.test) if data.test.labels is None else int(known_labels(data.test.labels).sum())
    cards = {name: m.protocol + part for name, m in chosen.items()}
    evaluation = Evaluation({}, cards, held_out, source, data.targets)

    def measured(arm: str, network: nn.Module, fed: EncoderSpec, recipe: Recipe) -> dict[str, float]:
        log(f"evaluating {arm}")
        wanted = {name: m for name, m in chosen.items() if arm in subjects or m.of_pixels}
        views = (pair(recipe), seed) if arm in subjects and any(m.needs_views for m in chosen.values()) else None
        values: dict[str, float] = {}
        with collect_answers() as answers:
            if of_features := [name for name, m in wanted.items() if not m.of_encoder]:
                features = extractor.data(network, data, fed, views)
                values = extractor.first(lambda: measure(on_device(features, extractor.device), of_features))
            subject = Subject(network, fed, data, extractor, recipe, seed, lambda text: log(f"{arm}: {text}"))
            alone = replace(subject, extractor=extractor.alone())
            for m in wanted.values():
                if m.of_encoder:
                    values |= m.measure(subject) if m.over_ranks else extractor.first(partial(m.measure, alone))
        if scored := sorted(scores().keys() & answers.keys()):
            evaluation.answers[arm] = {name: pack_answers(answers[name]) for name in scored}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    for arm, subject in (dict(subjects) | controls).items():
        evaluation.arms[arm] = dict(known[arm]) if arm in known else measured(arm, *subject)
        keep(evaluation)
    if data.targets and (guessed := guess(data, evaluation.arms)):
        evaluation.arms[GUESSES[data.targets]] = guessed
        keep(evaluation)
    return evaluation


def _with_bank(data: Dataset, bank: int) -> tuple[Dataset, str]:
    """``data`` with at most ``bank`` training images, and what a protocol says of that."""
    train = first(data.train, bank)
    if train is data.train:
        return data, ""
    return replace(data, train=train), f"; train split: {len(train):,} of {len(data.train):,} images, spread evenly"


def untrained_encoder(spec: EncoderSpec, seed: int) -> nn.Module:
    """The encoder that a run with ``seed`` starts from, in eval mode; torch's generator is left as it was."""
    with fork_random():
        torch.manual_seed(seed)
        return spec.build().to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
