"""From any source to a :class:`Dataset`: its splits, with labels that can be compared, then built."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from frossl.core.shared import SharedArray
from frossl.core.types import UserError
from frossl.data.build import Statistics, build
from frossl.data.options import Opening
from frossl.data.sources import Encoded, Sources
from frossl.data.splits import WORDS, some
from frossl.data.targets import Labels, read_labels
from frossl.data.types import Dataset

LABELS, GROUPS, SPLITS = ROLES = ("labels", "groups", "splits")


class Part(NamedTuple):
    """One split: images, and in ``columns`` what the source says of each, by the name of its role.

    ``labels`` are numbers, words, or lists of them, None, NaN or -1 where unknown; ``groups`` are names of what must
    stay in one split; ``splits`` are the words of a column that names the split of each image, None for images without
    a row. ``names`` are all classes in order, if the source names them. ``place`` is what messages call the part.
    """

    sources: Sources
    columns: Any = MappingProxyType({})
    place: str = "the training split"
    names: tuple[str, ...] = ()


class Found(NamedTuple):
    """What a source holds: training images and perhaps held-out ones, and where their labels come from."""

    name: str
    source: str
    parts: list[Part]
    notes: list[str]
    origin: str = ""


@dataclass(frozen=True, eq=False)
class Joined:
    """Several sources, one after the other, or only those of their images at ``index``; prefixes go before names."""

    sources: tuple[Sources, ...]
    prefixes: tuple[str, ...]
    index: np.ndarray | None = None

    @cached_property
    def ends(self) -> list[int]:
        return list(accumulate(map(len, self.sources)))

    def __len__(self) -> int:
        return self.ends[-1] if self.index is None else len(self.index)

    def _at(self, index: int) -> tuple[int, int]:
        place = index if self.index is None else int(self.index[index])
        which = bisect_right(self.ends, place)
        return which, place - (self.ends[which - 1] if which else 0)

    def __getitem__(self, index: int, /) -> str | bytes:
        which, place = self._at(index)
        return self.sources[which][place]

    def name(self, index: int) -> str:
        which, place = self._at(index)
        return self.prefixes[which] + self.sources[which].name(place)

    def stamp(self, index: int) -> str:
        which, place = self._at(index)
        return self.sources[which].stamp(place)


def concatenate(parts: Sequence[Part], prefixes: Sequence[str] = ()) -> Part:
    """Several parts as one; what a part does not say of its images is unknown."""
    if len(parts) == 1:
        return parts[0]
    sources = Joined(tuple(part.sources for part in parts), tuple(prefixes) or ("",) * len(parts))
    columns = {
        role: [value for part in parts for value in part.columns.get(role) or [None] * len(part.sources)]
        for role in ROLES
        if any(role in part.columns for part in parts)
    }
    names = {part.names for part in parts if LABELS in part.columns}
    return Part(sources, columns, parts[0].place, names.pop() if len(names) == 1 else ())


def join(found: Sequence[Found]) -> Found:
    """Several sources as one; those that bring no held-out images are trained on where others bring some."""
    if len(found) == 1:
        return found[0]
    heads = [f"{one.name}/" for one in found]
    parts = [concatenate([one.parts[0] for one in found], heads)]
    held_out = [(one.parts[1], head) for one, head in zip(found, heads, strict=True) if len(one.parts) > 1]
    if held_out:
        parts.append(concatenate(*zip(*held_out, strict=True)))
    notes = [f"{one.name}: {note}" for one in found for note in one.notes]
    origins = dict.fromkeys(one.origin for one in found if one.origin)
    name = "+".join(one.name for one in found)[:100]
    return Found(name, " + ".join(one.source for one in found), parts, notes, " and ".join(origins))


def divide(found: Found) -> Found:
    """``found`` with its only part in two where a column names the split of images; those without are trained on.

    Validation images are held out where there are no test images, or where these alone have no labels.

    Raises:
        UserError: the column holds something else than the name of a split.
    """
    places = [part.place for part in found.parts if SPLITS in part.columns]
    if not places:
        return found
    if len(found.parts) > 1:
        note = f"the column 'split' of {' and '.join(places)} is not used: folders or files are the splits"
        return found._replace(notes=[*found.notes, note])
    (part,) = found.parts
    words = ["train" if word is None else str(word).strip().lower() for word in part.columns[SPLITS]]
    strange = [word for word in words if word not in WORDS]
    if strange:
        counts = ", ".join(f"{word or 'nothing'} ({strange.count(word):,})" for word in sorted({*strange}))
        raise UserError(
            f"{part.place}: the column 'split' holds {counts}; expected are only "
            f"{', '.join(WORDS)}. Correct it, or rename the column to have images held out by the seed"
        )
    splits = np.array([WORDS[word] for word in words])
    named = {}
    for name in ("train", "test", "validation"):
        index = np.flatnonzero(splits == name)
        columns = {role: [values[i] for i in index.tolist()] for role, values in part.columns.items()}
        sources = Joined((part.sources,), ("",), index.view(SharedArray))
        if len(index):
            named[name] = part._replace(sources=sources, columns=columns, place=f"the split {name}")
    held_out = [name for name in ("test", "validation") if name in named]
    labelled = [n for n in held_out if any(label is not None for label in named[n].columns.get(LABELS, ()))]
    used = [*(["train"] if "train" in named else []), *(labelled or held_out)[:1]]
    counts = ", ".join(f"{len(one.sources):,} {name}" for name, one in named.items())
    unused = [name for name in named if name not in used]
    note = f"splits come from the column 'split': {counts}" + (f"; not used: {', '.join(unused)}" if unused else "")
    return found._replace(parts=[named[name] for name in used], notes=[*found.notes, note])


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
    first = read_labels(train.columns.get(LABELS, ()), train.names, options.targets)
    if not first.note:
        why = found.origin or "there are none"
        notes.append(f"no labels: {f'nothing is in {why}' if LABELS in train.columns else why}")
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


def _like(first: Labels, test: Part, train_place: str, notes: list[str]) -> Labels | None:
    """The labels of held-out images on the classes or tags of ``first``; None where none of these is known."""
    second = read_labels(test.columns.get(LABELS, ()), test.names, first.kind, first.tags)
    if not second.note:
        return None
    if not first.classes:
        notes += [f"{test.place}: {second.note}"] if first.tags else []
        return second
    number = {name: i for i, name in enumerate(first.classes)}
    numbers = np.array([*(number.get(name, -1) for name in second.classes), -1])[second.numbers]
    if not (numbers >= 0).any():
        return None
    strange = [name for name in second.classes if name not in number]
    if strange:
        notes.append(
            f"{(second.numbers >= 0).sum() - (numbers >= 0).sum():,} images of {test.place} are of classes that "
            f"{train_place} has not and count as unlabelled: {some(strange)}"
        )
    absent = np.setdiff1d(first.numbers[first.numbers >= 0], numbers)
    if absent.size:
        names = some(first.classes[i] for i in absent)
        notes.append(f"{test.place} has no image of {names}; accuracies are over the other classes")
    return replace(second, numbers=numbers, classes=first.classes)


def _groups(parts: Sequence[Part], pattern: str, notes: list[str]) -> np.ndarray | None:
    """The group of each image of a split that is to be divided; None of two, whose groups are compared in a note.

    Raises:
        UserError: ``pattern`` is no column of the data and no regular expression that fits a name.
    """
    column = any(GROUPS in part.columns for part in parts)
    found = [part.columns.get(GROUPS, ()) if column else _by_name(part, pattern) for part in parts]
    found = [[None if group is None or group != group else str(group) for group in groups] for groups in found]
    known = [any(group is not None for group in groups) for groups in found]
    if not any(known):
        raise UserError(
            f"--group {pattern}: the data have no such column with anything in it, and it is found in no name, such as "
            f"{parts[0].sources.name(0)!r}; the first group of the regular expression, or all that it matches, is the "
            "name of a patient, video or burst"
        )
    if not all(known):
        strange = parts[known.index(False)].place
        notes.append(f"--group: groups of {strange} are not known, so that it may share some with the other split")
    named = []
    for part, groups, some_known in zip(parts, found, known, strict=True):
        ungrouped = [part.sources.name(i) for i, group in enumerate(groups) if group is None]
        if ungrouped and some_known:
            notes.append(f"--group: {len(ungrouped):,} images belong to no group, such as {ungrouped[0]!r}")
        rest = iter(ungrouped)  # each is a group of its own
        named.append(np.array([f"\0{next(rest)}" if group is None else group for group in groups]))
    if len(parts) == 1:
        return named[0]
    if all(known):
        shared = len(np.intersect1d(*named))
        notes.append(f"--group: {shared:,} groups have images in both splits, which the data bring")
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
