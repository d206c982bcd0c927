"""Which of several files, such as shards, are which split: by their names or those of their folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

NAME = re.compile(r"(?:^|[-_. ])(train|training|test|testing|validation|valid|val)(?![a-z])", re.IGNORECASE)
ORDER = ("train", "training", "test", "testing", "val", "valid", "validation")


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
