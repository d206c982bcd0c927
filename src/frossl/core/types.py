"""The few shapes that travel between rooms.

Axes, used as name suffixes everywhere: V views, N batch, C channels, H height, W width,
F backbone features, D projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor


class UserError(ValueError):
    """Input that a person can mend: the message says what was got, what was wanted and what to do."""


class Loss(NamedTuple):
    """A scalar to minimise, the weighted terms that sum to it, and what a stateful objective remembers.

    ``total`` carries the gradient; ``terms`` are detached scalars for logs and plots; ``state`` holds new values,
    by name, of what the objective got as arguments (queues, centres, running statistics), which are never changed
    in place: whoever called decides whether they take effect.
    """

    total: Tensor
    terms: dict[str, Tensor]
    state: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a method is built for."""

    features: int
    """width F of the backbone's features"""
    views: int = 2
    """views V per image, of all resolutions"""
    large: int | None = None
    """how many of them, the first, have the largest resolution; all if None"""
    classes: int = 0
    """classes of the labels, for the supervised arms"""
    joint: bool = True
    """batch norms in heads see all views at once; else view by view"""

    @property
    def large_views(self) -> int:
        """``large`` as a number."""
        return self.views if self.large is None else self.large


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What a method may know at a step besides the features of the views."""

    share: float = 0.0
    """0 to 1 of the run that is done; where a finished run goes on, back to its middle and on again"""
    epoch: float = 0.0
    """epochs done"""
    target_VNF: Tensor | None = None
    """features of the large views from the averaged backbone, without gradient, for methods with ``momentum``"""
    labels_N: Tensor | None = None
    """class numbers, -1 where unknown; None where the data have none"""


@dataclass(frozen=True)
class Features:
    """What every metric reads: features of the same encoder on a bank and on held-out images.

    ``labels`` hold class numbers, -1 where a label is unknown, None where there are none at all. ``views_VNF``
    are features of several training views of held-out images, for metrics that compare views.
    """

    train_NF: Tensor
    test_NF: Tensor
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    views_VNF: Tensor | None = None
