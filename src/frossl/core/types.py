"""The few shapes that travel between rooms.

Axes, used as name suffixes everywhere: V views, N batch, C channels, H height, W width,
F backbone features, D projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class UserError(ValueError):
    """Input that a person can mend: the message says what was got, what was wanted and what to do."""


class Loss(NamedTuple):
    """A scalar to minimise and the weighted terms that sum to it.

    ``total`` carries the gradient; ``terms`` are detached scalars for logs and plots.
    """

    total: Tensor
    terms: dict[str, Tensor]


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
