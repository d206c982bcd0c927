"""The labelled part of features, and the part of it that options are chosen on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from frossl.core.linalg import require_finite
from frossl.core.types import Features, Targets, UserError, any_known, known
from frossl.data.types import Split


def labelled(features: Features, targets: Targets = "classes") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Train features and labels, held-out features and labels, without images whose label is unknown.

    Features come as constants in float32, or float64 if they were, labels as int64, or float64 if they are values.

    Raises:
        UserError: one side has no labelled image, not a label for each image, or labels that are no ``targets``.
        NumericalError: features, or their squares, are not finite.
    """
    sides = []
    for side, x, y in (
        ("train", features.train_NF, features.train_labels),
        ("held-out", features.test_NF, features.test_labels),
    ):
        if not any_known(y):
            raise UserError(f"this metric needs labels, and no image of the {side} split has one")
        if len(y) != len(x):
            raise UserError(
                f"the {side} split has {len(x):,} images and {len(y):,} labels; give one each, -1 if unknown"
            )
        values = y.is_floating_point()
        if (y.ndim == 2, values) != (targets == "multilabel", targets == "values"):
            raise UserError(f"this metric needs {targets}; labels are {tuple(y.shape)} of {y.dtype}")
        x, y = x.detach(), y.double() if values else y.long()
        x = x if x.dtype == torch.float64 else x.float()
        require_finite(x, f"features of the {side} split")
        there = known(y)
        sides += [x, y] if bool(there.all()) else [x[there], y[there]]
    return sides[0], sides[1], sides[2], sides[3]


def class_count(features: Features) -> int:
    """How many classes there are: those that have names or, where none are given, all numbers up to the largest label.

    Raises:
        UserError: a label has no name among those that are given.
    """
    sides = (features.train_labels, features.test_labels)
    most = max((int(y.max()) + 1 for y in sides if y is not None and len(y)), default=0)
    if 0 < len(features.classes) < most:
        raise UserError(
            f"labels go up to {most - 1}, but only {len(features.classes)} classes have names; name all, or none"
        )
    return len(features.classes) or most


def validation_split(n: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Indices of a random tenth of ``n`` train samples, at least one, and of the others: the same at every call.

    Raises:
        UserError: fewer than two samples.
    """
    if n < 2:
        raise UserError(f"a linear probe needs at least 2 labelled train images, got {n}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0)).to(device)
    return order[: max(1, n // 10)], order[max(1, n // 10) :]


def labelled_images(split: Split) -> tuple[Split, Tensor]:
    """The images of ``split`` that have a label, and their labels.

    Raises:
        UserError: there are none.
    """
    if not any_known(split.labels):
        raise UserError("this metric needs labels, and no image of a split has one")
    there = known(split.labels)
    return (split if bool(there.all()) else split.select(there.nonzero()[:, 0])), split.labels[there]


def draw_labels(y_N: Tensor, count: Callable[[int], int], classes: int, seed: int) -> Tensor:
    """Indices, in random order, of ``count(n)`` random samples of each class that has ``n`` of them."""
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for c in range(classes):
        of_class = (y_N == c).nonzero()[:, 0]
        order = torch.randperm(len(of_class), generator=generator)
        chosen.append(of_class[order[: count(len(of_class))].to(y_N.device)])
    index = torch.cat(chosen)
    return index[torch.randperm(len(index), generator=generator).to(index.device)]


def percentage(percent: float) -> Callable[[int], int]:
    """The function from n to ``percent`` of n, rounded, but at least 1."""
    return lambda n: max(1, round(n * percent / 100))
