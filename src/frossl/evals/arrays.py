"""Metrics of features that you have as arrays, without a data set or an encoder around them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frossl.core.types import Features, UserError


def of_arrays(measure: Callable[..., dict[str, float]]) -> Callable[..., dict[str, float]]:
    """``measure(features)`` as ``measure(train, train_labels, test, test_labels)``.

    Features are ``(N, F)`` numbers, labels ``(N,)`` class numbers, names of classes or values, or ``(N, T)`` of several
    labels; torch, NumPy or lists. A label of -1, or None or NaN among names, is unknown; metrics that
    need no labels take None for all of them. Options are those of the metric.

    Raises:
        UserError: shapes or labels that do not fit.
        NumericalError: features that are not finite.
    """

    @functools.wraps(measure)
    def measured(
        train: Any, train_labels: Any = None, test: Any = None, test_labels: Any = None, **options: Any
    ) -> dict[str, float]:
        classes, labels = _numbers(train_labels, test_labels)
        train_NF = _rows(train, "training")
        test_NF = train_NF[:0] if test is None else _rows(test, "held-out")
        if train_NF.shape[1] != test_NF.shape[1]:
            raise UserError(f"training features are {train_NF.shape[1]} wide, held-out ones {test_NF.shape[1]}")
        return measure(Features(train_NF, test_NF, labels[0], labels[1], classes), **options)

    return measured


def _rows(x: Any, side: str) -> Tensor:
    rows = torch.as_tensor(x)
    if rows.ndim != 2:
        raise UserError(f"{side} features must be (N, F), got {tuple(rows.shape)}")
    return rows if rows.is_floating_point() else rows.float()


def _numbers(*labels: Any) -> tuple[tuple[str, ...], list[Tensor | None]]:
    """Names of classes if labels are names, and numbers."""
    given = [y if y is None or isinstance(y, Tensor) else np.asarray(y) for y in labels]
    if not any(isinstance(y, np.ndarray) and y.dtype.kind in "OUS" for y in given):
        return (), [None if y is None else torch.as_tensor(y) for y in given]
    # As objects, since NumPy makes the name "nan" of a NaN in a list of names.
    given = [y if y is None or isinstance(y, Tensor | np.ndarray) else np.asarray(y, object) for y in labels]
    named = [[] if y is None else [_name(label) for label in y.tolist()] for y in given]
    classes = tuple(sorted({name for names in named for name in names if name is not None}))
    number = {name: i for i, name in enumerate(classes)} | {None: -1}
    return classes, [
        None if y is None else torch.tensor([number[name] for name in names])
        for y, names in zip(given, named, strict=True)
    ]


def _name(label: Any) -> str | None:
    """None of what is missing: None, NaN, and the NA of pandas, which is neither equal to itself nor not."""
    same = label == label
    return str(label) if label is not None and isinstance(same, bool | np.bool_) and same else None
