"""Ridge probe: a linear classifier in closed form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from frossl.core.linalg import decompose
from frossl.core.types import Features
from frossl.evals import Column, metric
from frossl.evals.balanced import with_balanced
from frossl.evals.labels import class_count, labelled, validation_split
from frossl.evals.linear import standardise

PENALTIES = tuple(10.0**power for power in range(2, -7, -1))


def ridge_solver(x_NF: Tensor, y_NK: Tensor) -> Callable[[float], Tensor]:
    """Of centred ``x`` and ``y``, the weights ``(F, K)`` for a penalty p: (x'x / N + p)^-1 x'y / N.

    One eigendecomposition, of the smaller of the covariance x'x / N and the Gram matrix xx' / N, serves every penalty.
    """
    n, width = x_NF.shape
    if n > width:
        values, axes = decompose(torch.linalg.eigh, x_NF.T @ x_NF / n)
        before, after = axes, axes.T @ (x_NF.T @ y_NK) / n
    else:
        values, axes = decompose(torch.linalg.eigh, x_NF @ x_NF.T / n)
        before, after = x_NF.T @ axes, axes.T @ y_NK / n
    values = values.clamp_min(0)[:, None]
    return lambda penalty: before @ (after / (values + penalty))


def ridge_fit(x_NF: Tensor, y_NK: Tensor, asked_MF: Tensor) -> Callable[[float], Tensor]:
    """What a fit on ``x`` and ``y`` predicts for ``asked``, ``(M, K)``, by the penalty; the bias has none."""
    mean, centre = x_NF.mean(0), y_NK.mean(0)
    solve = ridge_solver(x_NF - mean, y_NK - centre)
    return lambda penalty: (asked_MF - mean) @ solve(penalty) + centre


@metric(
    "ridge",
    needs_labels=True,
    protocol="ridge: least squares on one-hot targets and standardised features, all train labels, closed form; "
    f"L2 penalty of {len(PENALTIES)} values from 1e-6 to 100 by a tenth of the train split; intervals: Wilson",
    columns={"ridge": Column("ridge", score="accuracy")},
    order=70,
)
def ridge(features: Features) -> dict[str, float]:
    """Top-1 and balanced accuracy on the held-out images. The bias has no penalty."""
    x, y, test_x, test_y = labelled(features)
    x, test_x = (side.double() for side in standardise(x, test_x))
    targets = one_hot(y, class_count(features)).double()
    validation, rest = validation_split(len(x), x.device)
    predict = ridge_fit(x[rest], targets[rest], x[validation])
    hits = {penalty: int((predict(penalty).argmax(1) == y[validation]).sum()) for penalty in PENALTIES}
    best = max(PENALTIES, key=hits.__getitem__)  # the first, which is the strongest, of equals
    return with_balanced("ridge", ridge_fit(x, targets, test_x)(best).argmax(1) == test_y, test_y)
