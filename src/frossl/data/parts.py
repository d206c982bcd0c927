"""From any source to a :class:`Dataset`: its splits with labels as they stand there, compared, then built."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from frossl.core.types import UserError
from frossl.data.build import LISTED, Statistics, build
from frossl.data.options import Opening
from frossl.data.sources import Encoded, Sources
from frossl.data.targets import Labels, read_labels
from frossl.data.types import Dataset


class Part(NamedTuple):
    """One split: images and, where there are any, the label of each and the group that it belongs to.

    Labels are as they stand in the source: numbers, words, lists; None, NaN or -1 where unknown. With ``names``,
    numbers are theirs. ``place`` is what messages call it. ``splits`` are the words of a table that
    :func:`frossl.data.splits.divide` goes by, None of images that it does not name.
    """

    sources: Sources
    labels: Sequence[Any] | None = None
    names: tuple[str, ...] = ()
    groups: Sequence[Any] | None = None
    place: str = "the training split"
    splits: Sequence[Any] | None = None


class Found(NamedTuple):
    """What a source holds: training images and perhaps held-out ones, and where their labels come from."""

    name: str
    source: str
    parts: list[Part]
    notes: list[str]
    origin: str = ""


@dataclass(frozen=True, eq=False)
class Chain:
    """Several sources, one after the other; ``prefixes`` go before their names."""

    sources: tuple[Sources, ...]
    prefixes: tuple[str, ...]

    @cached_property
    def ends(self) -> list[int]:
        return list(accumulate(map(len, self.sources)))

    def __len__(self) -> int:
        return self.ends[-1]

    def _at(self, index: int) -> tuple[int, int]:
        which = bisect_right(self.ends, index)
        return which, index - (self.ends[which - 1] if which else 0)

    def __getitem__(self, index: int, /) -> str | bytes:
        which, place = self._at(index)
        return self.sources[which][place]

    def name(self, index: int) -> str:
        which, place = self._at(index)
        return self.prefixes[which] + self.sources[which].name(place)

    def stamp(self, index: int) -> str:
        which, place = self._at(index)
        return self.sources[which].stamp(place)


def chain(parts: Sequence[Part], prefixes: Sequence[str] = ()) -> Part:
    """Parts as one; unknown are the labels of those that have none."""
    if len(parts) == 1:
        return parts[0]
    sources = Chain(tuple(part.sources for part in parts), tuple(prefixes) or ("",) * len(parts))
    alike = len({part.names for part in parts if part.labels is not None}) == 1
    names = next((part.names for part in parts if part.labels is not None), ()) if alike else ()
    labels = groups = words = None
    if any(part.labels is not None for part in parts):
        labels = [label for part in parts for label in (_labels(part) if alike else _words(part))]
    if any(part.groups is not None for part in parts):
        groups = [group for part in parts for group in part.groups or [None] * len(part.sources)]
    if any(part.splits is not None for part in parts):
        words = [word for part in parts for word in part.splits or [None] * len(part.sources)]
    return Part(sources, labels, names, groups, parts[0].place, words)


def _labels(part: Part) -> Sequence[Any]:
    return [None] * len(part.sources) if part.labels is None else part.labels


def _words(part: Part) -> Sequence[Any]:
    """Labels with names in place of their numbers."""
    if not part.names:
        return _labels(part)

    def word(label: Any) -> Any:
        if isinstance(label, list):
            return [word(one) for one in label]
        return None if label is None or label == -1 else part.names[label]

    return [word(label) for label in _labels(part)]


def join(found: Sequence[Found]) -> Found:
    """Several sources as one; those that bring no held-out images are trained on where others bring some."""
    if len(found) == 1:
        return found[0]
    heads = [f"{one.name}/" for one in found]
    train = chain([one.parts[0] for one in found], heads)
    held_out = [(one.parts[1], head) for one, head in zip(found, heads, strict=True) if len(one.parts) > 1]
    parts = [train, chain(*zip(*held_out, strict=True))] if held_out else [train]
    notes = [f"{one.name}: {note}" for one in found for note in one.notes]
    origins = dict.fromkeys(one.origin for one in found if one.origin)
    name = "+".join(one.name for one in found)[:100]
    return Found(name, " + ".join(one.source for one in found), parts, notes, " and ".join(origins))


def to_dataset(found: Found, options: Opening, statistics: Statistics | None = None) -> Dataset:
    """The data set, with labels that both splits can be compared by.

    Held-out images without such labels make way for a part of the training images where these have labels.
    """
    notes, parts = list(found.notes), found.parts
    labels = _compared(found, options, notes) if options.labels else [Labels(np.empty(0))] * len(parts)
    groups = None if options.group is None else _groups(parts[: len(labels)], options.group, notes)
    encoded = [
        Encoded(part.sources, read.numbers if read.note else None, groups)
        for part, read in zip(parts, labels, strict=False)
    ]
    data = build(found.name, found.source, encoded, labels[0].classes, options, notes, statistics)
    return replace(data, tags=labels[0].tags)


def _compared(found: Found, options: Opening, notes: list[str]) -> list[Labels]:
    """The labels of the parts that are used, on the classes of the first; notes say what came of them."""
    train, *others = found.parts
    first = Labels(np.empty(0)) if train.labels is None else _read(train, options.targets)
    if not first.note:
        why = found.origin or "there are none"
        notes.append(f"no labels: {why}" if train.labels is None else f"no labels: nothing is in {why}")
        return [first] * len(found.parts)
    origin = found.origin or "the labels"
    said = first.note.replace("the labels", origin)
    notes.append(said if origin in said else f"{said}: {origin}")
    for test in others:
        second = _like(first, test, train.place, notes)
        if second is not None:
            return [first, second]
        notes.append(
            f"{test.place} has no labels of those that {train.place} has and is left out: a part of {train.place} is "
            f"held out in its place (--no-labels holds out {test.place})"
        )
    return [first]


def _read(part: Part, targets: str, tags: tuple[str, ...] = ()) -> Labels:
    """The labels of a part, with UserError that names it."""
    values: Sequence[Any] = part.labels or []
    several = any(isinstance(value, list) for value in values)
    wrong = ""
    if any(isinstance(label, list | dict) for value in values for label in (value if several else [value]) or ()):
        wrong = f"must hold one number or word for each image, or a list of them, got {values[0]}"
    elif part.names and not several:
        known = [value for value in values if value is not None]
        if not all(-1 <= value < len(part.names) for value in known):
            wrong = f"goes from {min(known)} to {max(known)}, with {len(part.names)} names of classes"
    if wrong:
        raise UserError(
            f"the label column of {part.place} {wrong}. Mend it, or open the data without labels (--no-labels)."
        )
    return read_labels(values, part.names or None, targets, tags)


def _like(first: Labels, test: Part, train_place: str, notes: list[str]) -> Labels | None:
    """The labels of held-out images as those of ``first``; None where they have none in common."""
    if test.labels is None:
        return None
    if first.tags:
        test = test._replace(labels=_words(test), names=())
        extra = {str(label) for value in test.labels or () if _is_words(value) for label in value} - {*first.tags}
        if extra:
            notes.append(f"labels that only {test.place} has are left out: {_some(sorted(extra))}")
            kept = [
                [x for x in value if str(x) not in extra] if _is_words(value) else value for value in test.labels or ()
            ]
            test = test._replace(labels=kept)
    second = _read(test, first.kind, first.tags)
    if not second.note or not first.classes:
        return second if second.note else None
    number = {name: i for i, name in enumerate(first.classes)}
    places = np.array([*(number.get(name, -1) for name in second.classes), -1])
    numbers = places[second.numbers]
    if not (numbers >= 0).any():
        return None
    strange = [name for name in second.classes if name not in number]
    if strange:
        notes.append(
            f"{(second.numbers >= 0).sum() - (numbers >= 0).sum():,} images of {test.place} are of classes that "
            f"{train_place} has not and count as unlabelled: {_some(strange)}"
        )
    absent = np.setdiff1d(first.numbers[first.numbers >= 0], numbers)
    if absent.size:
        names = _some([first.classes[i] for i in absent])
        notes.append(f"{test.place} has no image of {names}; accuracies are over the other classes")
    return replace(second, numbers=numbers, classes=first.classes)


def _is_words(value: Any) -> bool:
    """Whether the labels of an image are listed by name, not as 0 and 1."""
    return isinstance(value, list) and not all(label in (0, 1, -1) for label in value)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED:,} more" if len(names) > LISTED else "")


def _groups(parts: Sequence[Part], pattern: str, notes: list[str]) -> np.ndarray | None:
    """The group of each image of a split that is to be divided; None of two, whose groups are compared in a note.

    Raises:
        UserError: ``pattern`` is no column of the data and no regular expression that fits a name.
    """
    column = any(part.groups is not None for part in parts)
    found = [(part.groups or []) if column else _by_name(part, pattern) for part in parts]
    known = [any(map(_is_group, groups)) for groups in found]
    if not any(known):
        raise UserError(
            f"--group {pattern}: the data have no such column with anything in it, and it is found in no name, such as "
            f"{parts[0].sources.name(0)!r}; the first group of the regular expression, or all that it matches, is the "
            "name of a patient, video or burst"
        )
    named = [_named(part, groups, notes) for part, groups, there in zip(parts, found, known, strict=True) if there]
    if len(parts) == 1:
        return named[0]
    if all(known):
        shared = len(np.intersect1d(named[0], named[1]))
        notes.append(f"--group: {shared:,} groups have images in both splits, which the data bring")
    else:
        strange = parts[known.index(False)].place
        notes.append(f"--group: groups of {strange} are not known, so that it may share some with the other split")
    return None


def _by_name(part: Part, pattern: str) -> list[str | None]:
    """What the first group of ``pattern``, or all of it, matches in the name of each image."""
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"--group {pattern}: the data have no such column, and it is no regular expression: {error}"
        ) from None
    found = (regex.search(part.sources.name(i)) for i in range(len(part.sources)))
    return [match and match[min(1, regex.groups)] for match in found]


def _is_group(value: Any) -> bool:
    return value is not None and value == value


def _named(part: Part, groups: Sequence[Any], notes: list[str]) -> np.ndarray:
    """Groups as text; an image that belongs to none is one of its own, and a note counts them."""
    lonely = [i for i, group in enumerate(groups) if not _is_group(group)]
    if lonely:
        notes.append(f"--group: {len(lonely):,} images belong to no group, such as {part.sources.name(lonely[0])!r}")
    names = [str(group) for group in groups]
    for i in lonely:
        names[i] = f"\0{part.sources.name(i)}"
    return np.array(names)
