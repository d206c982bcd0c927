"""Tables of labels: beside images, as the files of a list, and how their columns are told apart."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from io import StringIO
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from frossl.core.types import UserError
from frossl.data.formats import EXTENSIONS
from frossl.data.options import Opening
from frossl.data.parts import Part
from frossl.data.splits import COLUMN, ORDER

KINDS = (".csv", ".tsv", ".jsonl", ".parquet")
STEMS = ("metadata", "labels", "label")
"""Names of tables, without extension, that are looked for beside images; those of splits are too, also with _labels."""
LABELS = ("label", "labels", "class", "class_name", "fine_label", "category", "target", "cls")
"""Columns that are taken for labels where there are several that may be."""

Columns = dict[str, list[Any]]


def is_table(name: str) -> bool:
    """Whether a file of this name, beside images, is a table of their labels."""
    stem, extension = os.path.splitext(name.lower())
    known = stem in STEMS or stem.removesuffix("_labels") in ORDER
    return extension in KINDS and known and not (extension == ".parquet" and stem in ORDER)


def read_table(path: Path, header: bool = True) -> Columns:
    """The columns of a table; what is empty or missing is None. Without ``header`` they are called path and label.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_table(path).to_pydict()
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        if path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            names = None if header else ("path", "label")
            first = text.lstrip().partition("\n")[0]
            rows = list(csv.DictReader(StringIO(text, newline=""), names, delimiter=max(",;\t", key=first.count)))
        names = dict.fromkeys(name for row in rows for name in row if name is not None)
        return {name: [None if row.get(name) in (None, "") else row[name] for row in rows] for name in names}
    except ModuleNotFoundError as error:
        raise UserError(f"{path} needs the package {error.name}: pip install 'frossl[hf]'") from None
    except (OSError, ValueError, AttributeError, TypeError, csv.Error) as error:
        raise UserError(
            f"cannot read the table {path}: {error}. Mend it, or do without its labels: --no-labels"
        ) from None


def match_rows(columns: Columns, names: Sequence[str], given: str | None) -> tuple[str, list[int | None]] | None:
    """The column that names images, and for each of its rows the place of the image in ``names``, if there is one.

    A row names an image by its path, the name of its file, or either without extension; the first that fits any.
    """
    choices = [given] if given in columns else list(columns)
    for key in (_path, _file, _without_extension, lambda text: _file(_without_extension(text))):
        places: dict[str, int | None] = {}
        for i, name in enumerate(names):
            short = key(name)
            places[short] = None if short in places else i
        found = {}
        for column in choices:
            rows = [value if isinstance(value, str) else str(value) for value in columns[column]]
            found[column] = [places.get(key(row)) for row in rows]
        best = max(found, key=lambda column: sum(place is not None for place in found[column]), default=None)
        if best is not None and any(place is not None for place in found[best]):
            return best, found[best]
    return None


def _path(text: str) -> str:
    return text.replace("\\", "/").removeprefix("./")


def _file(text: str) -> str:
    return _path(text).rpartition("/")[2]


def _without_extension(text: str) -> str:
    stem, extension = os.path.splitext(_path(text))
    return stem if extension.lower() in EXTENSIONS else _path(text)


def choose_column(columns: Columns, given: str | None, where: str, others: Sequence[str] = ()) -> tuple[str, str]:
    """The column of labels, empty if it is not clear which, and what else may be said. ``others`` are not asked."""
    if given is not None:
        return (given, "") if given in columns else ("", f"{where} has no column {given!r}")
    others = (*others, *(name for name in columns if name.lower() == COLUMN))
    fitting = [name for name, values in columns.items() if name not in others and may_be_labels(values)]
    named = [name for label in LABELS for name in columns if name.lower() == label and name not in others]
    named = [name for name in named if name in fitting] or named
    chosen = named[0] if named else fitting[0] if len(fitting) == 1 else ""
    rest = ", ".join(name for name in fitting if name != chosen)
    if chosen:
        return chosen, f"other columns that may be labels: {rest} (--label-column)" if rest else ""
    return "", f"which column holds labels? Say it with --label-column: {rest}" if rest else "no column can be labels"


def may_be_labels(values: list[Any]) -> bool:
    """Whether values are numbers, words or lists of them, of which words and whole numbers come again."""
    known = [tuple(value) if isinstance(value, list) else value for value in typed(values) if value is not None]
    if not known or not all(isinstance(value, bool | int | float | str | tuple) for value in known):
        return False
    if any(isinstance(part, list | dict | bytes) for value in known if isinstance(value, tuple) for part in value):
        return False
    different = len(set(known))
    return different > 1 and (all(isinstance(value, float) for value in known) or 2 * different <= len(known))


def note_on_repeated(table: str, images: Iterable[Any]) -> list[str]:
    """A note where several rows name one image, else none."""
    counts = Counter(image for image in images if image is not None)
    rows, several = sum(counts.values()), len(counts)
    return [f"{table}: {rows:,} rows name {several:,} images, of several the last counts"] if rows > several else []


def typed(values: list[Any]) -> list[Any]:
    """Text of which all is numbers as numbers; with leading zeros or ``_`` it stays text, as in names of classes."""
    known = [value for value in values if value is not None]
    if not known or not all(isinstance(value, str) for value in known):
        return values
    if any((len(value) > 1 and value[0] == "0" and value.isdigit()) or "_" in value for value in known):
        return values
    kinds: tuple[Callable[[str], Any], ...] = (int, float)
    for kind in kinds:
        with suppress(ValueError):
            return [None if value is None else kind(value) for value in values]
    return values


def find_splits(columns: Columns, options: Opening) -> list[Any] | None:
    """The column that says of which split images are, with "" for nothing; None without, or if it is something else."""
    taken = (options.label_column, options.image_column, options.group)
    column = next((name for name in columns if name.lower() == COLUMN and name not in taken), None)
    return None if column is None else ["" if word is None else word for word in columns[column]]


class Rows(NamedTuple):
    """A table whose rows were found among images: the image of each row, and what is said of it."""

    table: str
    columns: Columns
    images: list[int | None]
    label: str
    notes: list[str]


def find_rows(table: str, columns: Columns, names: Sequence[str], options: Opening) -> Rows | None:
    """The rows of a table that name one of ``names``, and its column of labels; None if no row does."""
    found = match_rows(columns, names, options.image_column)
    if found is None:
        return None
    column, images = found
    label, doubt = choose_column(columns, options.label_column, table, (column, options.group or column))
    missing = [str(value) for value, image in zip(columns[column], images, strict=True) if image is None]
    bare = len(names) - len({image for image in images if image is not None})
    notes = [f"{table}: {doubt}"] if doubt and options.labels else []
    notes += [f"{len(missing):,} rows of {table} name no image, such as {missing[0]}"] if missing else []
    notes += [f"{bare:,} images have no row in {table}"] if bare else []
    return Rows(table, columns, images, label, notes)


def labels_beside(
    folder: Path, prefixes: Iterable[str], parts: list[Part], options: Opening, notes: list[str]
) -> tuple[list[Part], str]:
    """The parts with what tables beside their images say of these, and from which columns labels come, if any.

    Tables are looked for in ``folder`` and, below it, in ``prefixes`` and the folders above these.

    Raises:
        UserError: no table has the column that was asked for.
    """
    above = {"", *(prefix[: i + 1] for prefix in prefixes for i, letter in enumerate(prefix) if letter == "/")}
    tables = [
        prefix + entry.name
        for prefix in sorted(above)
        for entry in sorted(os.scandir(folder / prefix), key=lambda entry: entry.name)
        if is_table(entry.name)
    ]
    names = [part.sources.name(i) for part in parts for i in range(len(part.sources))] if tables else []
    labels, groups, words = ([None] * len(names) for _ in range(3))
    origins, known = [], set()
    for table in tables:
        prefix = table[: table.rfind("/") + 1]
        inside = [i for i, name in enumerate(names) if name.startswith(prefix)]
        split = table.rpartition("/")[2].partition(".")[0].lower().removesuffix("_labels")
        if split in ORDER:
            of_split = [i for i in inside if names[i][len(prefix) :].lower().startswith(f"{split}/")]
            inside = of_split or inside
        columns = _read_if_needed(folder / table, options, notes)
        known.update(columns)
        splits = find_splits(columns, options)
        if not options.labels and splits is None and options.group not in columns:
            continue
        rows = find_rows(table, columns, [names[i][len(prefix) :] for i in inside], options)
        if rows is None:
            notes.append(f"{table} is not used: no column of it names the images")
            continue
        notes += [*rows.notes, *note_on_repeated(table, rows.images)]
        origins += [f"the column {rows.label!r} of {table}"] if rows.label and options.labels else []
        found = [typed(columns.get(column or "", [])) for column in (rows.label, options.group)]
        for values, into in zip((*found, splits or []), (labels, groups, words), strict=True):
            for image, value in zip(rows.images, values, strict=False):
                if image is not None:
                    into[inside[image]] = value
    for flag, column in (("--label-column", options.label_column), ("--image-column", options.image_column)):
        if column is not None and column not in known:
            raise UserError(f"{flag} {column}: no table beside the images in {folder} has such a column")
    starts = [0, *accumulate(len(part.sources) for part in parts)]
    for i, (start, end) in enumerate(pairwise(starts)):
        parts[i] = parts[i]._replace(
            labels=labels[start:end] if origins else None,
            groups=groups[start:end] if any(group is not None for group in groups) else None,
            splits=words[start:end] if any(word is not None for word in words[start:end]) else None,
        )
    return parts, " and ".join(origins)


def _read_if_needed(path: Path, options: Opening, notes: list[str]) -> Columns:
    """The columns of a table; one that cannot be read is noted, and has none, where no labels or groups are wanted."""
    try:
        return read_table(path)
    except UserError:
        if options.labels or options.group is not None:
            raise
        notes.append(f"{path.name} cannot be read and is not used")
        return {}
