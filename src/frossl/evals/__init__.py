"""Metrics: of features, or of an encoder itself; deterministic, on held-out images.

A metric is one file of this package, imported because it is there. :func:`metric` registers it with everything that
tables, charts and verdicts need to know. Metrics of features are functions of arrays here, and hide the module of their
name: ``knn(train, train_labels, test, test_labels)``, ``rank(features)``, ``lidar(views)``.

>>> import torch
>>> import frossl.evals
>>> train, labels = torch.eye(4), ["cat", "cat", "dog", "dog"]
>>> frossl.evals.knn(train, labels, train, labels, k=1)["knn"]
1.0
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn

from frossl.core.linalg import or_nothing
from frossl.core.registry import Registry
from frossl.core.types import Features, Targets
from frossl.data.types import Dataset
from frossl.evals.arrays import of_arrays
from frossl.evals.extract import Extractor
from frossl.nn.encoder import EncoderSpec
from frossl.views.recipes import Recipe


@dataclass(frozen=True)
class Column:
    """How one value of a metric is shown."""

    heading: str
    """name in few letters, for a terminal"""
    in_full: str = ""
    """name where there is room, if it is another"""
    better: Literal["higher", "lower"] | None = "higher"
    """which way is better, if any"""
    digits: int = 3
    score: Literal["accuracy", "balanced accuracy", "R2", "average precision"] | None = None
    """the kind of score, if it is one: charts show it, comparisons order arms by it"""
    decides: bool = False
    """whether the verdict on pretraining goes by it"""

    @property
    def title(self) -> str:
        """The name in full."""
        return self.in_full or self.heading


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measure of features or of a :class:`Subject`, and how tables, charts and reports describe it."""

    measure: Callable[..., dict[str, float]]
    needs_labels: bool
    of_pixels: bool
    """whether it is measured on raw pixels too"""
    protocol: str
    """how the values are measured, in one line"""
    columns: Mapping[str, Column] = field(default_factory=dict)
    """values that are shown, by name; the others are in ``evaluation.json`` only"""
    order: int = 1000
    """place of its columns among those of others, from the left"""
    targets: Targets = "classes"
    """what labels must be, for a metric that needs them"""
    of_encoder: bool = False
    """whether it measures a :class:`Subject`, not features"""
    over_ranks: bool = False
    """whether ranks divide its work, where it measures a :class:`Subject`; else rank 0 does it"""
    needs_views: bool = False
    """whether it measures features of two views of each image"""
    default_of: tuple[str, ...] = ()
    """commands that measure it by default: evaluate, compare"""
    glossary: Mapping[str, str] = field(default_factory=dict)
    """terms that reports explain where it was measured"""


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


def metric(name: str, *, needs_labels: bool, **about: Any) -> Callable:
    """Registers ``measure(features) -> {name: value}``, or ``measure(subject)`` with ``of_encoder=True``.

    A metric of features that cannot be decomposed has no values. ``about`` are fields of :class:`Metric`. By
    default, raw pixels are measured by metrics of features that need labels. An accuracy ``NAME`` gets a column
    ``NAME_balanced``, for where it is measured (:func:`frossl.evals.balanced.with_balanced`).
    """

    def add(measure: Callable[..., dict[str, float]]) -> Callable[..., dict[str, float]]:
        about.setdefault("of_pixels", needs_labels and not about.get("of_encoder"))
        about["columns"] = _with_balanced(about.get("columns", {}))
        return METRICS.add(name, Metric(measure=or_nothing(measure), needs_labels=needs_labels, **about)).measure

    return add


def _with_balanced(columns: Mapping[str, Column]) -> dict[str, Column]:
    made: dict[str, Column] = {}
    for name, c in columns.items():
        made[name] = c
        if c.score == "accuracy":
            titles = {"heading": f"{c.heading} bal.", "in_full": f"{c.title}, balanced"}
            made[f"{name}_balanced"] = replace(c, score="balanced accuracy", **titles)
    return made


def find_metrics(names: Iterable[str]) -> dict[str, Metric]:
    """The metrics of these names.

    Raises:
        UserError: there is none of a name.
    """
    return {name: METRICS[name] for name in names}


def applicable(names: Iterable[str] | None, targets: Targets | None) -> dict[str, Metric]:
    """The metrics of these names, or all, that can be measured where labels are ``targets``."""
    found = dict(METRICS.items()) if names is None else find_metrics(names)
    return {name: m for name, m in found.items() if not m.needs_labels or m.targets == targets}


def in_order() -> dict[str, Metric]:
    """All metrics, in the order of their columns."""
    return dict(sorted(METRICS.items(), key=lambda item: item[1].order))


def columns() -> dict[str, Column]:
    """Every value that is shown, in the order of tables."""
    return {name: column for m in in_order().values() for name, column in m.columns.items()}


def scores() -> dict[str, Column]:
    """The columns that say how good features are, by labels."""
    return {name: column for name, column in columns().items() if column.score}


def noun(names: Iterable[str]) -> str:
    """The noun for scores of these names: accuracy, or score if one is of another kind."""
    return "accuracy" if all("accuracy" in (columns()[name].score or "") for name in names) else "score"


def label_free() -> dict[str, Column]:
    """The columns that need no labels and have a better end."""
    found = (m.columns.items() for m in in_order().values() if not m.needs_labels)
    return {name: column for items in found for name, column in items if column.better}


def defaults(command: str) -> tuple[str, ...]:
    """Names of the metrics that ``command`` measures by default."""
    return tuple(name for name, m in in_order().items() if command in m.default_of)


def measure(features: Features, names: list[str]) -> dict[str, float]:
    """All values of the named metrics that are :func:`applicable`."""
    found = applicable(names, features.targets).values()
    return {name: value for m in found for name, value in m.measure(features).items()}


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

globals().update(
    {
        (function := name.replace("-", "_")): of_arrays(
            function,
            inspect.unwrap(m.measure),
            list(m.columns),
            labels=m.targets if m.needs_labels else None,
            of_views=m.needs_views,
        )
        for name, m in METRICS.items()
        if not m.of_encoder
    }
)
