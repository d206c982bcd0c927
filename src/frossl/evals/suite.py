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
from frossl.evals.guess import DESCRIPTIONS, GUESSES, guess
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
    **DESCRIPTIONS,
}
"""Arms beside the pretrained encoder."""
CONTROLS = (START, "untrained", "raw pixels", *GUESSES.values())
"""Arms that pretraining must beat; the supervised arm is no control, it shows what labels would give."""


@dataclass(frozen=True)
class Evaluation:
    """Values of every arm; ``protocols`` are lines on how they were measured."""

    arms: dict[str, dict[str, float]]
    protocols: dict[str, str]
    held_out: int
    source: str = ""
    """name of the data set or path of the images; missing in older files"""
    targets: Targets | None = None
    """what the labels are"""
    answers: dict[str, dict[str, str]] = field(default_factory=dict)
    """by arm and accuracy, which labelled held-out images were answered right (:func:`unpack_answers`); not of arms
    that another run measured"""

    @property
    def uneven(self) -> bool:
        """Whether the largest class has so many of the held-out images that balanced accuracies decide."""
        guessed = self.arms.get(GUESSES["classes"], {})
        pairs = ((largest, guessed.get(f"{name}_balanced")) for name, largest in guessed.items())
        return any(even is not None and uneven(largest, even) for largest, even in pairs)

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
    save: Callable[[Evaluation], None] = lambda evaluation: None,
) -> Evaluation:
    """Measures ``encoder``, the untrained encoder of the same ``seed`` (or ``untrained``), ``others``, and raw pixels.

    The untrained encoder gets batch-norm statistics from one pass over the training images. Without labels there
    are only figures that need none, and no accuracy is made up; raw pixels have no views and no rank to compare.
    Figures that are not finite, as of features that overflow, are left out. Arms that are ``known`` are taken as they
    are given. Of more than ``bank`` training images so many are used, spread evenly, and protocols say so. ``save`` is
    called after each arm from the untrained one on, as an arm may take hours.
    """
    untrained = (copy.deepcopy(untrained) or untrained_encoder(spec, seed)).to(extractor.device)
    if "untrained" not in known:
        extractor.each(lambda: extractor.settle_batch_norm(untrained, first(data.train, bank), spec))
    networks = {"pretrained": encoder, "untrained": untrained, **others}
    subjects = {arm: (network, spec, recipe) for arm, network in networks.items()}
    how = {"known": known, "protocols": protocols, "source": source, "bank": bank, "log": log, "save": save}
    return measure_arms(subjects, data, extractor, seed=seed, **how)


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
    save: Callable[[Evaluation], None] = lambda evaluation: None,
) -> Evaluation:
    """Measures encoders by arm, each fed as its spec says and with views of its recipe, then pixels and a guess.

    Arguments as those of :func:`evaluate`; ``save`` is called after each arm but the first.
    """
    train, part = first(data.train, bank), ""
    if train is not data.train:
        part = f"; train split: {len(train):,} of {len(data.train):,} images, spread evenly"
        data = replace(data, train=train)
    chosen = applicable(protocols, data.targets)
    fed = next(iter(subjects.values()))
    controls = {"raw pixels": (*pixels(fed[1]), fed[2])} if data.targets else {}
    held_out = len(data.test) if data.test.labels is None else int(known_labels(data.test.labels).sum())
    cards = {name: m.protocol + part for name, m in chosen.items()}
    evaluation = Evaluation({}, cards, held_out, source, data.targets)

    def measured(arm: str, network: nn.Module, fed: EncoderSpec, recipe: Recipe) -> dict[str, float]:
        log(f"evaluating {arm}")
        fitting = {name: m for name, m in chosen.items() if arm in subjects or m.of_pixels}
        views = (pair(recipe), seed) if arm in subjects and any(m.needs_views for m in chosen.values()) else None
        values: dict[str, float] = {}
        with collect_answers() as answers:
            if of_features := [name for name, m in fitting.items() if not m.of_encoder]:
                features = extractor.data(network, data, fed, views)
                values = extractor.first(lambda: measure(on_device(features, extractor.device), of_features))
            subject = Subject(network, fed, data, extractor, recipe, seed, lambda text: log(f"{arm}: {text}"))
            alone = replace(subject, extractor=extractor.alone())
            for m in fitting.values():
                if m.of_encoder:
                    values |= m.measure(subject) if m.over_ranks else extractor.first(partial(m.measure, alone))
        if scored := sorted(scores().keys() & answers.keys()):
            evaluation.answers[arm] = {name: pack_answers(answers[name]) for name in scored}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    for arm, subject in (dict(subjects) | controls).items():
        evaluation.arms[arm] = dict(known[arm]) if arm in known else measured(arm, *subject)
        if len(evaluation.arms) > 1:
            save(evaluation)
    if data.targets and (guessed := guess(data, evaluation.arms)):
        evaluation.arms[GUESSES[data.targets]] = guessed
        save(evaluation)
    return evaluation


def untrained_encoder(spec: EncoderSpec, seed: int) -> nn.Module:
    """The encoder that a run with ``seed`` starts from, in eval mode; torch's generator is left as it was."""
    with fork_random():
        torch.manual_seed(seed)
        return spec.build().to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
