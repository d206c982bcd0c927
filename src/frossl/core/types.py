"""Types that several packages share.

Axes, used as name suffixes everywhere: V views, N batch, C channels, H height, W width,
F backbone features, D projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeGuard

from torch import Tensor

Targets = Literal["classes", "values", "multilabel"]
"""What labels are: a class an image, a value to predict, or several labels an image."""


class UserError(ValueError):
    """An error of the user's input; the message says what was given, what is expected and what to do."""


class Loss(NamedTuple):
    """A scalar to minimise, the weighted terms that sum to it, and the new state of the objective.

    ``total`` carries the gradient; ``terms`` are detached scalars for logs and plots; ``state`` holds new values, by
    name, of arguments of the objective (queues, centres, running statistics). Those are never changed in place: the
    caller decides whether the new values take effect.
    """

    total: Tensor
    terms: dict[str, Tensor]
    state: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """The arguments with which a method is built."""

    features: int
    """width F of the backbone's features"""
    views: int = 2
    """views V per image, of all resolutions"""
    large: int | None = None
    """number of the first views with the largest resolution; all if None"""
    classes: int = 0
    """classes of the labels, for the supervised arms"""
    joint: bool = True
    """batch norms in heads see all views at once; else view by view"""

    @property
    def large_views(self) -> int:
        """``large`` as a number."""
        return self.views if self.large is None else self.large


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """The arguments of a method at a step besides the features of the views."""

    progress: float = 0.0
    """0 to 1 of the run; a finished run that is extended goes back to its middle"""
    epoch: float = 0.0
    """epochs done"""
    target_VNF: Tensor | None = None
    """features of the large views from the averaged backbone, without gradient, for methods with ``momentum``"""
    labels_N: Tensor | None = None
    """class numbers, -1 where unknown; None where the data have none"""


@dataclass(frozen=True)
class Features:
    """The input of every metric: features of one encoder of training (the bank) and held-out images.

    ``labels`` are those of :class:`frossl.data.types.Split`, None without any. ``views_VNF`` are features of several
    training views of held-out images, for metrics that compare views.
    """

    train_NF: Tensor
    test_NF: Tensor
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    views_VNF: Tensor | None = None

    @property
    def targets(self) -> Targets | None:
        """The kind of the labels, None without any."""
        return kind_of(self.train_labels, self.test_labels, self.classes)


def known(labels: Tensor) -> Tensor:
    """Which images, ``(N,)``, have a label: no -1, of values no NaN."""
    if labels.is_floating_point():
        return ~labels.isnan()
    return labels >= 0 if labels.ndim == 1 else (labels >= 0).all(1)


def any_known(labels: Tensor | None) -> TypeGuard[Tensor]:
    """Whether at least one label is known."""
    return labels is not None and bool(known(labels).any())


def kind_of(train: Tensor | None, test: Tensor | None, classes: tuple[str, ...]) -> Targets | None:
    """The kind of the labels of two splits; None if one has no known label."""
    if classes:
        return "classes"
    if not (any_known(train) and any_known(test)):
        return None
    several = "multilabel" if train.ndim == 2 else None
    return "values" if train.is_floating_point() else several
