"""Metrics of features that you have as arrays, without a data set or an encoder around them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frossl.core.axes import stack_views
from frossl.core.types import Features, Targets, UserError

Measure = Callable[..., dict[str, float]]
_WITH_LABELS = """
{about}

Args:
    train: features ``(N, F)`` of training images; torch, NumPy or lists, on any device.
    train_labels: {labels}.
    test: features of held-out images, on which the score is taken.
    test_labels: as ``train_labels``.

Returns:
    dict: {values}.

Raises:
    UserError: shapes or labels that do not fit.
    NumericalError: features that are not finite.
"""
_ALONE = """
{about}

Args:
    {given}; torch, NumPy or lists.

Returns:
    dict: {values}.

Raises:
    UserError: shapes that do not fit.
    NumericalError: features that are not finite.
"""
_LABELS: dict[Targets, str] = {
    "classes": "``(N,)`` names of classes or whole numbers, of any size; None, NaN or -1 is unknown",
    "values": "``(N,)`` values to predict; NaN is unknown",
    "multilabel": "``(N, T)`` of 0 and 1; -1 is unknown",
}


def of_arrays(
    name: str, measure: Measure, columns: Sequence[str], *, labels: Targets | None = None, of_views: bool = False
) -> Measure:
    """``measure(features)`` as a function of arrays, called ``name``; ``columns`` are names of its values.

    With the kind of ``labels`` it needs it takes ``train, train_labels, test, test_labels``; else features ``(N, F)``
    alone, or, ``of_views``, those of V views of each image.
    """
    about, given = inspect.getdoc(measure), "features: ``(N, F)`` of images"
    values = ", ".join(f"``{column}``" for column in columns) + ", and what belongs to them, such as ``NAME_low``"

    def of_both(train: Any, train_labels: Any, test: Any, test_labels: Any, **options: Any) -> dict[str, float]:
        assert labels is not None
        classes, (train_y, test_y) = _numbers(labels, train_labels, test_labels)
        train_NF, test_NF = _rows(train, "training features"), _rows(test, "held-out features")
        for rows, y, side in ((train_NF, train_y, "training"), (test_NF, test_y, "held-out")):
            if len(rows) != len(y):
                raise UserError(f"{len(rows)} rows of {side} features have {len(y)} labels")
        if train_NF.shape[1] != test_NF.shape[1]:
            raise UserError(f"training features are {train_NF.shape[1]} wide, held-out ones {test_NF.shape[1]}")
        return measure(Features(train_NF, test_NF, train_y, test_y, classes), **options)

    def of_features(features: Any, **options: Any) -> dict[str, float]:
        rows = _rows(features, "features")
        return measure(Features(rows, rows), **options)

    def of_several(views: Any, **options: Any) -> dict[str, float]:
        views = [_rows(view, "features of a view") for view in views]
        views_VNF = stack_views(views)
        return measure(Features(views_VNF[0][:0], views_VNF[0], views_VNF=views_VNF), **options)

    if labels is not None:
        made, doc = of_both, _WITH_LABELS.format(about=about, values=values, labels=_LABELS[labels])
    else:
        made = of_several if of_views else of_features
        given = (
            "views: ``(V, N, F)``, or V tensors ``(N, F)``: features of V views of each image" if of_views else given
        )
        doc = _ALONE.format(about=about, values=values, given=given)
    own = [p for p in inspect.signature(measure).parameters.values() if p.kind is p.KEYWORD_ONLY]
    arguments = [p for p in inspect.signature(made).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    made.__name__ = made.__qualname__ = name
    made.__doc__, made.__module__ = inspect.cleandoc(doc), "frossl.evals"
    made.__signature__ = inspect.Signature([*arguments, *own])  # type: ignore[attr-defined]
    return made


def _rows(x: Any, what: str) -> Tensor:
    rows = torch.as_tensor(x)
    if rows.ndim != 2:
        raise UserError(f"{what} must be (N, F), got {tuple(rows.shape)}")
    return rows if rows.is_floating_point() else rows.float()


def _numbers(kind: Targets, *labels: Any) -> tuple[tuple[str, ...], list[Tensor]]:
    """Labels as metrics take them; where they are classes, numbers from 0, and the names of classes if there are any.

    Raises:
        UserError: names and numbers, no class in common, or numbers that are none of classes.
    """
    if any(y is None for y in labels):
        raise UserError("labels are needed, of training and of held-out images")
    given = [y.detach().cpu() if isinstance(y, Tensor) else np.asarray(y) for y in labels]
    named = [isinstance(y, np.ndarray) and y.dtype.kind in "OUS" for y in given]
    if any(named) and not all(named):
        raise UserError("some labels are names and others numbers: give both splits the same kind")
    if all(named):
        # As objects, since NumPy makes the name "nan" of a NaN in a list of names.
        lists = [(y if isinstance(y, np.ndarray) else np.asarray(y, object)).tolist() for y in labels]
        names = [[_name(label) for label in y] for y in lists]
        classes = tuple(sorted(_in_common(names, None)))
        number = {name: i for i, name in enumerate(classes)} | {None: -1}
        return classes, [torch.tensor([number[name] for name in y], dtype=torch.int64) for y in names]
    numbers = [torch.as_tensor(y) for y in given]
    if kind != "classes" or any(y.ndim != 1 for y in numbers):
        return (), numbers
    if any(y.is_floating_point() and bool((y != y.round()).any()) for y in numbers):
        raise UserError("numbers of classes must be whole")
    # Numbers as they may be, such as identifiers of seven digits, would each ask for a place in every table.
    values = sorted(_in_common([y.long().tolist() for y in numbers], -1))
    places = torch.tensor(values, dtype=torch.int64)
    return (), [torch.where(y == -1, -1, torch.searchsorted(places, y.long().contiguous())) for y in numbers]


def _in_common(labels: Sequence[Sequence[Any]], unknown: Any) -> set[Any]:
    """All known labels of two splits.

    Raises:
        UserError: both have some, and none is in both.
    """
    train, test = (set(y) - {unknown} for y in labels)
    if train and test and not train & test:
        one, other = (", ".join(map(str, sorted(some)[:3])) for some in (train, test))
        raise UserError(f"no class is in both splits: training labels are {one} ..., held-out ones {other} ...")
    return train | test


def _name(label: Any) -> str | None:
    """None of what is missing: None, NaN, and the NA of pandas, which is neither equal to itself nor not."""
    same = label == label
    return str(label) if label is not None and isinstance(same, bool | np.bool_) and same else None
