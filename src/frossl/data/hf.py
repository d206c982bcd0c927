"""Parquet files in the Hugging Face image layout as a data set."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from frossl.core.types import UserError
from frossl.data.build import build, check_same_classes
from frossl.data.decode import UnreadableError
from frossl.data.options import Opening
from frossl.data.sources import Encoded
from frossl.data.targets import Labels, read_labels
from frossl.data.types import Dataset

if TYPE_CHECKING:
    import datasets

SPLIT_NAME = re.compile(r"(train|test|validation|valid|val)(?![a-z])", re.IGNORECASE)
CACHE = "parquet-cache"


@dataclass(frozen=True, eq=False)
class Rows:
    """Encoded images in the ``image`` column of a memory-mapped table."""

    table: datasets.Dataset
    file: str

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int, /) -> bytes:
        cell = self.table.data.column("image")[index].as_py() or {}
        if cell.get("bytes") is None:
            raise UnreadableError("the row holds no image bytes")
        return cell["bytes"]

    def name(self, index: int) -> str:
        cell = self.table.data.column("image")[index].as_py() or {}
        return cell.get("path") or f"{self.file}:{index}"

    def stamp(self, index: int) -> str:
        """The row and the table's file, whose path datasets makes from what the Parquet files are."""
        files = [file["filename"] for file in self.table.cache_files]
        return f"{files[0] if files else self.file}:{index}"


def find_parquet(path: Path) -> list[Path]:
    """The Parquet files that ``path`` is, holds, or holds in ``data/``; hidden files are left out."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" else []
    found = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
    return [file for file in found if not file.name.startswith(".")]


def open_parquet(path: Path, options: Opening) -> Dataset:
    """Parquet files with a column ``image`` (struct of bytes and path) and perhaps ``label``.

    File names that start with train, test, val or validation give the splits. Needs the extra ``hf``.
    """
    train_files, test_files, notes = _splits(find_parquet(path))
    train, labels = _read(train_files, options)
    parts, classes = [train], labels.classes
    if test_files:
        test, others = _read(test_files, options, labels)
        check_same_classes(classes, others.classes, ("the training split", "the held-out split"))
        if others.classes:  # they may be in another order
            places = np.array([*map(classes.index, others.classes), -1])
            test = test._replace(labels=places[others.numbers])
        parts.append(test)
    if labels.note:
        notes.append(f"{labels.note}: the column 'label'")
    elif options.labels:
        notes.append("no labels: there is no column 'label', or nothing in it")
    data = build(path.resolve().stem, f"Parquet files {path}", parts, classes, options, notes)
    return replace(data, tags=labels.tags)


def _splits(files: list[Path]) -> tuple[list[Path], list[Path], list[str]]:
    named: dict[str, list[Path]] = {}
    for file in files:
        match = SPLIT_NAME.match(file.name)
        named.setdefault(match[1].lower() if match else "", []).append(file)
    if "train" not in named and "" in named:
        named["train"] = named.pop("")
    order = [name for name in ("train", "test", "val", "valid", "validation") if name in named]
    used = order[:2] if order[:1] == ["train"] else order[:1]
    unused = [file.name for name, group in named.items() if name not in used for file in group]
    train, test = named[used[0]], named[used[1]] if len(used) == 2 else []
    return train, test, [f"files not used: {', '.join(unused)}"] if unused else []


def _read(files: list[Path], options: Opening, like: Labels | None = None) -> tuple[Encoded, Labels]:
    """The rows of a split and their labels, which are of the kind of those of another split where they are given."""
    table = _table(files, options)
    rows = Rows(table, files[0].name)
    if not options.labels or "label" not in table.column_names:
        return Encoded(rows), Labels(np.empty(0))
    values = table.data.column("label").to_pylist()
    column = table.features["label"]
    names = getattr(getattr(column, "feature", column), "names", None)
    wrong, several = "", any(isinstance(value, list) for value in values)
    if any(isinstance(label, list | dict) for value in values for label in (value if several else [value]) or ()):
        wrong = f"must hold one number or word for each image, or a list of them, got {values[0]}"
    elif not several and names is not None and not all(value is None or -1 <= value < len(names) for value in values):
        known = [value for value in values if value is not None]
        wrong = f"goes from {min(known)} to {max(known)}, with {len(names)} names of classes"
    if wrong:
        raise UserError(
            f"{files[0]}: the column 'label' {wrong}. Mend it, or open the data without labels (--no-labels)."
        )
    targets = like.kind if like is not None and like.note else options.targets
    labels = read_labels(values, names, targets, like.tags if like is not None else ())
    return Encoded(rows, labels.numbers if labels.note else None), labels


def _table(files: list[Path], options: Opening) -> datasets.Dataset:
    """The rows of some files, memory-mapped from a cache below ``data_dir``, with their images still encoded."""
    try:
        import datasets
        from datasets.exceptions import DatasetGenerationError
        from pyarrow import ArrowException
    except ModuleNotFoundError as error:
        raise UserError(f"Parquet files need the package 'datasets' ({error}): pip install 'frossl[hf]'") from error
    try:
        cache = str(options.data_dir / CACHE)
        table = datasets.Dataset.from_parquet([str(file) for file in files], cache_dir=cache)
        assert isinstance(table, datasets.Dataset)
        if "image" not in table.column_names:
            only = ", ".join(table.column_names)
            raise ValueError(f"it has no column 'image', only {only}; rename the one that holds the images")
        return table.cast_column("image", datasets.Image(decode=False))
    except (DatasetGenerationError, ArrowException, OSError, TypeError, ValueError) as error:
        raise UserError(
            f"cannot read {files[0]} as Parquet with a column of images: {error.__cause__ or error}"
        ) from error
