"""Parquet files in the Hugging Face image layout as a data set."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from frossl.core.types import UserError
from frossl.data.build import build, check_same_classes, number_labels
from frossl.data.decode import UnreadableError
from frossl.data.options import Opening
from frossl.data.sources import Encoded
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
    train, classes = _read(train_files, options)
    parts = [train]
    if test_files:
        test, test_classes = _read(test_files, options)
        check_same_classes(classes, test_classes, ("the training split", "the held-out split"))
        if test.labels is not None:  # its classes may be in another order
            places = np.array([*map(classes.index, test_classes), -1])
            test = test._replace(labels=places[test.labels])
        parts.append(test)
    if classes:
        notes.append(f"{len(classes)} classes come from the column 'label'")
    elif options.labels:
        notes.append("no labels: there is no column 'label', or nothing in it")
    return build(path.resolve().stem, f"Parquet files {path}", parts, classes, options, notes)


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


def _read(files: list[Path], options: Opening) -> tuple[Encoded, tuple[str, ...]]:
    table = _table(files, options)
    rows = Rows(table, files[0].name)
    if not options.labels or "label" not in table.column_names:
        return Encoded(rows), ()
    values = table.data.column("label").to_pylist()
    names = getattr(table.features["label"], "names", None)
    wrong = ""
    if any(isinstance(value, list | dict) for value in values):
        wrong = f"must hold one number or word for each image, got {values[0]}"
    elif names is not None and not all(value is None or -1 <= value < len(names) for value in values):
        known = [value for value in values if value is not None]
        wrong = f"goes from {min(known)} to {max(known)}, with {len(names)} names of classes"
    if wrong:
        raise UserError(
            f"{files[0]}: the column 'label' {wrong}. Mend it, or open the data without labels (--no-labels)."
        )
    labels, classes = number_labels(values, names)
    return Encoded(rows, labels), classes


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
