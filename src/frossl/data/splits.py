"""Which images are which split: by the names of their files or folders, or by a column of a table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from frossl.core.shared import SharedArray
from frossl.core.types import UserError
from frossl.data.parts import Found, Part
from frossl.data.sources import Sources

T = TypeVar("T")

NAME = re.compile(r"(?:^|[-_. ])(train|training|test|testing|validation|valid|val)(?![a-z])", re.IGNORECASE)
ORDER = ("train", "training", "test", "testing", "val", "valid", "validation")
COLUMN = "split"
UNLABELLED = ("unlabeled", "unlabelled")
KINDS = (("train", (*ORDER[:2], *UNLABELLED)), ("test", ORDER[2:4]), ("validation", ORDER[4:]))
WORDS = {word: kind for kind, words in KINDS for word in words}
"""What a column of splits may say, and what that is."""


def split_of(path: Path) -> str:
    """The name of the split in that of a file or else of one of its folders, the nearest first; empty if in none."""
    found = (NAME.search(name) for name in (path.name, *reversed(path.parent.parts)))
    return next((match[1].lower() for match in found if match), "")


def choose_splits(named: Mapping[str, T]) -> list[str]:
    """The names of the training and, if there is one, the held-out split, of all there are."""
    order = [name for name in ORDER if name in named]
    train = [name for name in order if name.startswith("train")] or [name for name in named if name not in ORDER]
    held_out = [name for name in order if not name.startswith("train")]
    return [*train[:1], *held_out[:1]] if train else held_out[:1]


def split_files(path: Path, files: Sequence[Path]) -> tuple[list[tuple[str, list[Path]]], list[str]]:
    """The files of the training and, if there are any, of the held-out split, with their names; and notes.

    Those without a name of a split are training images, if no others are.
    """
    named: dict[str, list[Path]] = {}
    for file in files:
        named.setdefault(split_of(file.relative_to(path) if file.is_relative_to(path) else Path(file.name)), []).append(
            file
        )
    used = choose_splits(named)
    unused = [file.name for name, group in named.items() if name not in used for file in group]
    notes = [f"files not used: {_some(unused)}"] if unused else []
    return [(name or "the training split", named[name]) for name in used], notes


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:20]) + (f" and {len(listed) - 20:,} more" if len(listed) > 20 else "")


@dataclass(frozen=True, eq=False)
class Picked:
    """The images at ``index`` of ``sources``."""

    sources: Sources
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int, /) -> str | bytes:
        return self.sources[int(self.index[index])]

    def name(self, index: int) -> str:
        return self.sources.name(int(self.index[index]))

    def stamp(self, index: int) -> str:
        return self.sources.stamp(int(self.index[index]))


def divide(found: Found) -> Found:
    """``found`` with its only part in two where a column says of which split images are; those of none are trained on.

    Validation images are held out where there are no test images, or where these alone have no labels.

    Raises:
        UserError: the column says something else than the name of a split.
    """
    told = [part.place for part in found.parts if part.splits is not None]
    if not told:
        return found
    if len(found.parts) > 1:
        note = f"the column {COLUMN!r} of {' and '.join(told)} is not used: folders or files are the splits"
        return found._replace(notes=[*found.notes, note])
    (part,) = found.parts
    words = ["train" if word is None else str(word).strip().lower() for word in part.splits or ()]
    strange = Counter(word for word in words if word not in WORDS)
    if strange:
        listed = _some(f"{word or 'nothing'} ({count:,})" for word, count in sorted(strange.items()))
        raise UserError(
            f"{found.source}: the column {COLUMN!r} says of images what is no split: {listed}. Wanted is one of "
            f"{', '.join(WORDS)}; mend it, or give the column another name, and images are held out by the seed"
        )
    splits = np.array([WORDS[word] for word in words])
    named = {name: _pick(part, np.flatnonzero(splits == name), name) for name, _ in KINDS}
    named = {name: one for name, one in named.items() if len(one.sources)}
    labelled = [name for name, one in named.items() if any(label is not None for label in one.labels or ())]
    held_out = [name for name in ("test", "validation") if name in named]
    held_out = [name for name in held_out if name in labelled] or held_out
    used = [*(["train"] if "train" in named else []), *held_out[:1]]
    counts = ", ".join(f"{len(one.sources):,} {name}" for name, one in named.items())
    unused = [name for name in named if name not in used]
    note = f"splits come from the column {COLUMN!r}: {counts}" + (f"; not used: {', '.join(unused)}" if unused else "")
    return found._replace(parts=[named[name] for name in used], notes=[*found.notes, note])


def _pick(part: Part, index: np.ndarray, name: str) -> Part:
    """The images at ``index`` of a part, and what is known of them."""
    labels, groups = (
        None if values is None else [values[i] for i in index.tolist()] for values in (part.labels, part.groups)
    )
    sources = Picked(part.sources, index.view(SharedArray))
    return part._replace(sources=sources, labels=labels, groups=groups, place=f"the split {name}", splits=None)
