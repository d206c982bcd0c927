"""Which images belong to which split, by the names of their files or folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

TRAIN, UNLABELLED = ("train", "training"), ("unlabeled", "unlabelled")
TEST, VALIDATION = ("test", "testing"), ("val", "valid", "validation")
HELD_OUT = (*TEST, *VALIDATION)
NAMES = (*TRAIN, *HELD_OUT)
"""Names of splits, those that are preferred first."""
WORDS = {
    word: kind
    for kind, words in (("train", (*TRAIN, *UNLABELLED)), ("test", TEST), ("validation", VALIDATION))
    for word in words
}
"""What a column of splits may say, and the split that each word stands for."""
_IN_NAME = re.compile(rf"(?:^|[-_. ])({'|'.join(NAMES)})(?![a-z])", re.IGNORECASE)
LISTED = 20


def some(names: Iterable[str]) -> str:
    """The first 20 names, and how many more there are."""
    listed = list(names)
    return ", ".join(listed[:LISTED]) + (f" and {len(listed) - LISTED:,} more" if len(listed) > LISTED else "")


def split_of(path: Path) -> str:
    """The name of the split in that of a file or else of its nearest folder that has one; empty if none has."""
    found = (_IN_NAME.search(name) for name in reversed(path.parts))
    return next((match[1].lower() for match in found if match), "")


def choose_splits(named: Mapping[str, T]) -> list[str]:
    """The names of the training split and, if there is one, of the held-out split."""
    train = [name for name in TRAIN if name in named] or [name for name in named if name not in NAMES]
    held_out = [name for name in HELD_OUT if name in named]
    return [*train[:1], *held_out[:1]] if train else held_out[:1]


def split_files(path: Path, files: Sequence[Path]) -> tuple[list[tuple[str, list[Path]]], list[str]]:
    """The files of the training split and, if there are any, of the held-out split, with their names; and notes.

    Files whose names hold no split are training images, unless other files are.
    """
    named: dict[str, list[Path]] = {}
    for file in files:
        name = split_of(file.relative_to(path) if file.is_relative_to(path) else Path(file.name))
        named.setdefault(name, []).append(file)
    used = choose_splits(named)
    unused = [file.name for name, group in named.items() if name not in used for file in group]
    notes = [f"files not used: {some(unused)}"] if unused else []
    return [(name or "the training split", named[name]) for name in used], notes
