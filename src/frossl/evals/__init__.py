"""Metrics: of features, or of an encoder itself; deterministic, on held-out images, each with its protocol card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from frossl.core.linalg import or_nothing
from frossl.core.registry import Registry, unknown_name
from frossl.core.types import Features
from frossl.data.types import Dataset
from frossl.evals.extract import Extractor
from frossl.nn.encoder import EncoderSpec
from frossl.views.recipes import Recipe


@dataclass(frozen=True)
class Metric:
    """A measure of features or of a :class:`Subject`. ``protocol`` says in one line how the numbers come about."""

    measure: Callable[..., dict[str, float]]
    needs_labels: bool
    protocol: str
    of_pixels: bool
    """whether it says anything of raw pixels"""


@dataclass(frozen=True, eq=False)
class Subject:
    """An encoder under test, which stays as it is: how it is fed, the images, the views of its run."""

    encoder: nn.Module
    spec: EncoderSpec
    data: Dataset
    extractor: Extractor
    recipe: Recipe
    seed: int
    log: Callable[[str], None] = lambda message: None


METRICS: Registry[Metric] = Registry("metric")
"""``measure(features) -> {name: value}``"""
ENCODER_METRICS: Registry[Metric] = Registry("metric of encoders")
"""``measure(subject) -> {name: value}``, for what needs more than features of plain images"""


def metric(name: str, *, needs_labels: bool, protocol: str) -> Callable:
    """Registers ``measure(features) -> {name: value}``, made to give nothing where features are of no use."""

    def add(measure: Callable[..., dict[str, float]]) -> Callable[..., dict[str, float]]:
        measure = or_nothing(measure)
        METRICS.add(name, Metric(measure, needs_labels, protocol, of_pixels=needs_labels))
        return measure

    return add


def encoder_metric(name: str, *, needs_labels: bool, protocol: str, of_pixels: bool = False) -> Callable:
    """Registers ``measure(subject) -> {name: value}``, made to give nothing where features are of no use."""

    def add(measure: Callable[..., dict[str, float]]) -> Callable[..., dict[str, float]]:
        measure = or_nothing(measure)
        ENCODER_METRICS.add(name, Metric(measure, needs_labels, protocol, of_pixels))
        return measure

    return add


def find_metric(name: str) -> Metric:
    """The metric ``name``, of features or of encoders.

    Raises:
        UserError: there is none.
    """
    if name in ENCODER_METRICS:
        return ENCODER_METRICS[name]
    if name not in METRICS:
        raise unknown_name("metric", name, [*METRICS, *ENCODER_METRICS])
    return METRICS[name]


def measure(features: Features, names: list[str]) -> dict[str, float]:
    """All values of the named metrics; those that need labels are left out where there are none."""
    values: dict[str, float] = {}
    for name in names:
        chosen = METRICS[name]
        if features.classes or not chosen.needs_labels:
            values |= chosen.measure(features)
    return values


from frossl.evals import (  # noqa: E402  (each registers its metrics)
    alignment,  # noqa: F401
    augmented,  # noqa: F401
    clustering,  # noqa: F401
    finetune,  # noqa: F401
    knn,  # noqa: F401
    lidar,  # noqa: F401
    linear,  # noqa: F401
    retrieval,  # noqa: F401
    ridge,  # noqa: F401
    robustness,  # noqa: F401
    spectral,  # noqa: F401
)
