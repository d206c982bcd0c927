"""Ridge regression of values, such as ages, from features."""

from __future__ import annotations

import torch
from torch import Tensor

from frossl.core.types import Features
from frossl.evals import Column, metric
from frossl.evals.interval import jackknife, random_groups, with_interval
from frossl.evals.labels import labelled, validation_split
from frossl.evals.linear import FEW, FOLDS, standardise
from frossl.evals.ridge import PENALTIES, ridge_fit


def explained(error_N: Tensor, y_N: Tensor) -> dict[str, float]:
    """``r2``, the share of the variance of ``y`` that is explained; nothing where ``y`` does not vary.

    At most 1, and below 0 if the mean of ``y`` is nearer.
    """
    varies = bool((y_N != y_N[0]).any())
    return {"r2": 1 - (error_N.square().sum() / (y_N - y_N.mean()).square().sum()).item()} if varies else {}


def select_penalty(x_NF: Tensor, y_N: Tensor) -> float:
    """The penalty with the least squared error in cross-validation, or on a tenth; the strongest of equals."""
    validation, _ = validation_split(len(x_NF), x_NF.device)
    parts = [validation] if len(x_NF) > FEW else [part.to(x_NF.device) for part in random_groups(len(x_NF), FOLDS)]
    errors = dict.fromkeys(PENALTIES, 0.0)
    for part in parts:
        rest = torch.ones(len(x_NF), dtype=torch.bool, device=x_NF.device)
        rest[part] = False
        predict = ridge_fit(x_NF[rest], y_N[rest, None], x_NF[part])
        for penalty in PENALTIES:
            errors[penalty] += (predict(penalty)[:, 0] - y_N[part]).square().sum().item()
    return min(PENALTIES, key=errors.__getitem__)


@metric(
    "regression",
    needs_labels=True,
    targets="values",
    protocol="regression: ridge regression on standardised features, all train labels, closed form; L2 penalty of "
    f"{len(PENALTIES)} values from 1e-6 to 100 by {FOLDS}-fold cross-validation on up to {FEW:,} train images, by a "
    "tenth of more; intervals: jackknife over images for R², Student's t for the absolute error",
    columns={
        "r2": Column("R²", "R² of a ridge regression", score="R2", decides=True),
        "mae": Column("MAE", "mean absolute error", better="lower"),
    },
    order=20,
    default_of=("evaluate", "compare"),
    glossary={
        "R²": "The share of the variance of held-out values that a linear regression on the features explains: 1 is "
        "perfect, 0 is no better than their mean.",
        "Mean absolute error": "How far predictions are off on average, in the unit of the values; lower is better.",
    },
)
def regression(features: Features) -> dict[str, float]:
    """R² and mean absolute error on the held-out images, with their intervals; no R² where values are all alike."""
    x, y, test_x, test_y = labelled(features, "values")
    x, test_x = (side.double() for side in standardise(x, test_x))
    error = ridge_fit(x, y[:, None], test_x)(select_penalty(x, y))[:, 0] - test_y
    r2 = jackknife(lambda kept: explained(error[kept], test_y[kept]), len(test_y))
    return r2 | with_interval("mae", error.abs())
