"""The labelled part of features, and the part of it that options are chosen on."""

from __future__ import annotations

import torch
from torch import Tensor

from frossl.core.types import Features, UserError


def labelled(features: Features) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Train features and labels, held-out features and labels, without images whose label is -1.

    Raises:
        UserError: one side has no labelled image.
    """
    sides = []
    for side, x, y in (
        ("train", features.train_NF, features.train_labels),
        ("held-out", features.test_NF, features.test_labels),
    ):
        if y is None or not bool((y >= 0).any()):
            raise UserError(f"this metric needs labels, and no image of the {side} split has one")
        sides += [x, y] if bool((y >= 0).all()) else [x[y >= 0], y[y >= 0]]
    return sides[0], sides[1], sides[2], sides[3]


def validation_split(n: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Indices of a random tenth of ``n`` train samples, at least one, and of the others: the same at every call.

    Raises:
        UserError: fewer than two samples.
    """
    if n < 2:
        raise UserError(f"a linear probe needs at least 2 labelled train images, got {n}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0)).to(device)
    return order[: max(1, n // 10)], order[max(1, n // 10) :]
