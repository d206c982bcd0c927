"""Metrics: ``metric(features, **options) -> {name: value}``, deterministic, on held-out images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from frossl.core.registry import Registry
from frossl.core.types import Features


@dataclass(frozen=True)
class Metric:
    """A measure of features. ``protocol`` says in one line how the numbers come about."""

    measure: Callable[..., dict[str, float]]
    needs_labels: bool
    protocol: str


METRICS: Registry[Metric] = Registry("metric")


def metric(name: str, *, needs_labels: bool, protocol: str) -> Callable:
    """Registers ``measure(features) -> {name: value}``."""

    def add(measure: Callable[..., dict[str, float]]) -> Callable[..., dict[str, float]]:
        METRICS.add(name, Metric(measure, needs_labels, protocol))
        return measure

    return add


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
    clustering,  # noqa: F401
    knn,  # noqa: F401
    lidar,  # noqa: F401
    linear,  # noqa: F401
    retrieval,  # noqa: F401
    ridge,  # noqa: F401
    spectral,  # noqa: F401
)
