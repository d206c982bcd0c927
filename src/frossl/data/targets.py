"""What labels are: classes, values to predict, or several labels an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from frossl.core.types import UserError
from frossl.data.splits import some

FEW_CLASSES = 20
"""Up to this many different whole numbers are classes."""
IMAGES_A_CLASS, IMAGES_A_NUMBER = 10, 50
"""Images per number above which more numbers are classes: numbered from 0 or 1 without a gap, or with gaps."""


@dataclass(frozen=True)
class Labels:
    """The labels of some images.

    Class numbers, int64 ``(N,)``, with the names of ``classes``; or values, float64 ``(N,)``; or 0 and 1, int64
    ``(N, K)``, with the names ``tags`` of K labels. Unknown is -1, of values NaN. ``note`` says what was decided, and
    is empty if no label is known.
    """

    numbers: np.ndarray
    classes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    note: str = ""

    @property
    def kind(self) -> Literal["classes", "values"]:
        """How another split of the same data must be read."""
        return "values" if self.numbers.dtype.kind == "f" else "classes"


def read_labels(
    values: Sequence[Any], names: tuple[str, ...] = (), targets: str = "auto", tags: tuple[str, ...] = ()
) -> Labels:
    """One label for each image, a number or a word, or a list of them; None, NaN and -1 where unknown.

    Numbers are classes or values by :func:`are_values`, unless ``targets`` says which. ``names`` are all classes, if
    they are known. ``tags`` are those of the training split, if labels are lists.

    Raises:
        UserError: labels are nested, or values are asked for and labels are no finite numbers.
    """
    lists = [value for value in values if isinstance(value, list)]
    if any(isinstance(label, list | dict) for value in values for label in (value if lists else [value]) or ()):
        raise UserError(
            f"labels must be one number or word for each image, or a list of them; got {values[0]}. Mend them, or "
            "open the data without labels (--no-labels)"
        )
    if lists and (tags or any(len(value) != 1 for value in lists)):
        return _several(values, names, tags)
    values = [value[0] if isinstance(value, list) else value for value in values]
    measured = targets == "values" or (targets == "auto" and not names and _all_numbers(values))
    found = _as_values(values) if measured else np.empty(0)
    known = found[~np.isnan(found)]
    if len(known) and (targets == "values" or are_values(known)):
        whole = "" if targets == "values" or (known % 1).any() else "; if they number classes, give --targets classes"
        return Labels(found, note=f"labels are values, from {known.min():g} to {known.max():g}{whole}")
    numbers, classes = number_labels(values, names)
    many = measured and len(classes) > FEW_CLASSES
    note = "; if their numbers are measurements, give --targets values" if many else ""
    return Labels(numbers, classes, note=f"{len(classes)} classes come from the labels{note}" if classes else "")


def number_labels(values: Sequence[Any], names: Sequence[Any] = ()) -> tuple[np.ndarray, tuple[str, ...]]:
    """The number of the class of each value, int64 and -1 for None, NaN and -1, and the names of all classes.

    The classes are ``names`` or, without, the values in order, numbers first.
    """
    unknown = {value for value in values if value is None or value != value or value == -1}
    names = names or sorted({*values} - unknown, key=lambda value: (isinstance(value, str), value))
    number = {name: i for i, name in enumerate(names)}
    numbers = np.fromiter((number.get(value, -1) for value in values), np.int64, len(values))
    return numbers, tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names)


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
    kinds = {type(value) for value in values if value is not None}
    return all(issubclass(kind, int | float) for kind in kinds) and kinds != {bool}


def _as_values(values: Sequence[Any]) -> np.ndarray:
    """Float64 ``(N,)``, NaN where unknown; -1 is unknown too unless other numbers are negative."""
    try:
        found = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    except ValueError as error:
        raise UserError(f"--targets values: a label is no number ({error}); leave it out to read classes") from None
    if np.isinf(found).any():
        raise UserError("a label is infinite; labels are finite numbers, and NaN where they are unknown")
    return np.where(found == -1, np.nan, found) if (found[found < 0] == -1).all() else found


def is_multi_hot(lists: Sequence[Sequence[Any]]) -> bool:
    """Whether lists hold 0, 1 or -1 (unknown) for each label, and not the labels of an image.

    Where no list has anything twice, 0 and 1 are themselves labels.

    >>> is_multi_hot([[0, 1, 1], [1, 0, 0]]), is_multi_hot([[0, 1], [1, 0]]), is_multi_hot([[0, 2], [1]])
    (True, False, False)
    """
    widths, flat = {len(value) for value in lists}, {label for value in lists for label in value}
    repeats = any(len({*value}) < len(value) for value in lists)
    return len(widths) == 1 and max(widths) > 1 and flat <= {-1, 0, 1} and repeats


def _several(values: Sequence[Any], names: tuple[str, ...], tags: tuple[str, ...]) -> Labels:
    """0 and 1 for each of K labels, from lists of K such numbers, or of the labels that an image has.

    Labels that are not among ``tags``, if there are any, are left out.
    """
    lists = [value if value is None else [label for label in value if label is not None] for value in values]
    known = [value for value in lists if value is not None]
    flat = {label for value in known for label in value}
    if is_multi_hot(known):
        width, left_out = len(known[0]), []
        tags = tags or names or tuple(map(str, range(width)))
        if width != len(tags):
            raise UserError(f"images have {width} labels, with {len(tags)} names; give as many to all")
        numbers = np.array([[-1] * width if value is None else value for value in lists], np.int64)
    elif not flat:
        return Labels(np.full(len(values), -1, np.int64))
    else:
        left_out = sorted({str(label) for label in flat} - {*tags}) if tags else []
        tags = tags or names or tuple(map(str, sorted(flat)))
        number = {tag: i for i, tag in enumerate(tags)}
        numbers = np.zeros((len(lists), len(tags)), np.int64)
        for row, value in zip(numbers, lists, strict=True):
            row[[number[str(label)] for label in value or () if str(label) in number]] = 1
            if value is None:
                row[:] = -1
    mean = (numbers == 1).sum() / max(len(known), 1)
    note = f"; labels that only these images have are left out: {some(left_out)}" if left_out else ""
    return Labels(numbers, tags=tags, note=f"{len(tags)} labels, {mean:.2g} of them an image{note}")
