"""What a column of labels is: classes, values to predict, or several labels an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from frossl.core.types import UserError
from frossl.data.build import LISTED, number_labels

FEW_CLASSES = 20
"""Up to so many different whole numbers are classes."""
IMAGES_A_CLASS, IMAGES_A_NUMBER = 10, 50
"""So many images for each number make more of them classes, if they are numbered without a gap, or if they are not."""


@dataclass(frozen=True)
class Labels:
    """The labels of a column.

    Class numbers, int64 ``(N,)``, with the names of ``classes``; or values, float64 ``(N,)``; or 0 and 1, int64
    ``(N, K)``, with the names ``tags`` of K labels. Unknown is -1, of values NaN. ``note`` says what was decided.
    """

    numbers: np.ndarray
    classes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    note: str = ""

    @property
    def kind(self) -> Literal["classes", "values"]:
        """What another split of the same data must be read as."""
        return "values" if self.numbers.dtype.kind == "f" else "classes"


def read_labels(
    values: Sequence[Any], names: Sequence[Any] | None = None, targets: str = "auto", tags: tuple[str, ...] = ()
) -> Labels:
    """One label for each image, a number or a word, or a list of them; None, NaN and -1 where unknown.

    With ``names``, numbers are theirs and so classes. Else numbers are classes or values by :func:`are_values`, unless
    ``targets`` says which. ``tags`` are those of another split, if labels are lists.

    Raises:
        UserError: values are asked for and labels are no finite numbers, or lists hold what is not among ``tags``.
    """
    lists = [value for value in values if isinstance(value, list)]
    if lists and (tags or any(len(value) != 1 for value in lists)):
        return _several(values, names, tags)
    if lists:  # of one label each
        values = [value[0] if isinstance(value, list) else value for value in values]
    measured = targets == "values" or (targets == "auto" and names is None and _all_numbers(values))
    found = _as_values(values) if measured else np.empty(0)
    known = found[~np.isnan(found)]
    if len(known) and (targets == "values" or are_values(known)):
        whole = "" if targets == "values" or (known % 1).any() else "; if they number classes, give --targets classes"
        note = f"labels are values, from {known.min():g} to {known.max():g}{whole}"
        return Labels(found, note=note)
    numbers, classes = number_labels(values, names)
    many = measured and len(classes) > FEW_CLASSES
    note = "; if their numbers are measurements, give --targets values" if many else ""
    return Labels(numbers, classes, note=f"{len(classes)} classes come from the labels{note}" if classes else "")


def are_values(known_N: np.ndarray) -> bool:
    """Whether numbers are values, such as ages, and do not number classes.

    Numbers that are not all whole are. Up to :data:`FEW_CLASSES` different whole numbers are not. More of them are
    classes if they go from 0 or 1 up without a gap and each has ten images, or all have about as many; numbers with
    gaps are classes only if each has fifty images.

    >>> are_values(np.arange(1000) % 200), are_values(np.array([20, 24, 31, 80] * 9)), are_values(np.arange(20, 80))
    (False, False, True)
    """
    if (known_N % 1).any():
        return True
    numbers, counts = np.unique(known_N, return_counts=True)
    if len(numbers) <= FEW_CLASSES:
        return False
    if numbers[0] not in (0, 1) or numbers[-1] - numbers[0] + 1 > len(numbers):
        return bool(counts.mean() < IMAGES_A_NUMBER)
    # Counts of values drawn at random vary by their mean.
    return bool(counts.mean() < IMAGES_A_CLASS and counts.var() >= counts.mean() / 2)


def _all_numbers(values: Sequence[Any]) -> bool:
    known = [value for value in values if value is not None]
    return all(isinstance(value, int | float) for value in known) and not all(
        isinstance(value, bool) for value in known
    )


def _as_values(values: Sequence[Any]) -> np.ndarray:
    """Float64 ``(N,)``, NaN where unknown; -1 is unknown too unless other numbers are negative."""
    try:
        found = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    except ValueError as error:
        raise UserError(
            f"--targets values: a label is no number ({error}); leave it out to read them as classes"
        ) from None
    if np.isinf(found).any():
        raise UserError("a label is infinite; labels are finite numbers, and NaN where they are unknown")
    negative = found[found < 0]
    return np.where(found == -1, np.nan, found) if (negative == -1).all() else found


def _several(values: Sequence[Any], names: Sequence[Any] | None, tags: tuple[str, ...]) -> Labels:
    """0 and 1 for each of K labels: lists are of K such numbers, or have the names or numbers of an image's labels."""
    from sklearn.preprocessing import MultiLabelBinarizer  # takes a second to import

    values = [value if value is None else [label for label in value if label is not None] for value in values]
    known = [value for value in values if value is not None]
    flat, lengths = {label for value in known for label in value}, {len(value) for value in known}
    if len(lengths) == 1 and max(lengths) > 1 and flat <= {-1, 0, 1} and not _numbers_of_labels(known):
        width = max(lengths)
        tags = tags or tuple(map(str, names or range(width)))
        numbers = np.array([[-1] * width if value is None else value for value in values], np.int64)
    elif not flat:
        return Labels(np.full(len(values), -1, np.int64))
    else:
        if names and not all(0 <= label < len(names) for label in flat):
            raise UserError(f"labels go from {min(flat)} to {max(flat)}, with {len(names)} names; name all")
        words = [[str(names[label] if names else label) for label in value or ()] for value in values]
        tags = tags or tuple(map(str, names or sorted(flat)))
        if extra := {word for row in words for word in row} - set(tags):
            raise UserError(
                f"labels that only the held-out split has: {', '.join(sorted(extra)[:LISTED])}. Leave them out"
            )
        numbers = np.array(MultiLabelBinarizer(classes=tags).fit_transform(words), np.int64)
        numbers[[value is None for value in values]] = -1
    if numbers.shape[1] != len(tags):
        raise UserError(f"images have {numbers.shape[1]} labels, with {len(tags)} names; give as many to all")
    mean = (numbers == 1).sum() / max(len(known), 1)
    return Labels(numbers, tags=tags, note=f"{len(tags)} labels, {mean:.2g} of them an image")


def _numbers_of_labels(lists: Sequence[Sequence[Any]]) -> bool:
    """Whether no list has anything twice, so that its 0 and 1 are numbers of labels, each of which it has."""
    return all(len(set(value)) == len(value) for value in lists)
