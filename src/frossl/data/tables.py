"""Tables of labels: beside images, as the files of a list, and how their columns are told apart."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from frossl.core.types import UserError
from frossl.data.formats import EXTENSIONS
from frossl.data.options import Opening
from frossl.data.parts import GROUPS, LABELS, ROLES, SPLITS, Part
from frossl.data.splits import NAMES

KINDS = (".csv", ".tsv", ".jsonl", ".parquet")
STEMS = ("metadata", "labels", "label")
"""Names of tables, without extension, that are looked for beside images; those of splits are too, also with _labels."""
LABEL_NAMES = ("label", "labels", "class", "class_name", "fine_label", "category", "target", "cls")
"""Columns that are taken for labels where several may be, those that are preferred first."""

Columns = dict[str, list[Any]]


def is_table(name: str) -> bool:
    """Whether a file of this name, beside images, is a table of their labels."""
    stem, extension = os.path.splitext(name.lower())
    known = stem in STEMS or stem.removesuffix("_labels") in NAMES
    return extension in KINDS and known and not (extension == ".parquet" and stem in NAMES)


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
            f"cannot read the table {path}: {error}. Mend it, or open without labels: --no-labels"
        ) from None


def choose_label(columns: Columns, options: Opening, where: str, taken: Sequence[str] = ()) -> tuple[str, list[str]]:
    """The column of labels, empty if it is not clear which, and notes on the others; not one of those ``taken``."""
    given = options.label_column
    if given in columns or not (columns and options.labels):
        return given if given in columns and options.labels else "", []
    if given is not None:
        return "", [f"{where}: no column {given!r}"]
    free = [name for name in columns if name not in (*taken, options.group) and name.lower() != "split"]
    fitting = [name for name in free if may_be_labels(columns[name])]
    named = [name for label in LABEL_NAMES for name in free if name.lower() == label]
    named = [name for name in named if name in fitting] or named
    chosen = named[0] if named else fitting[0] if len(fitting) == 1 else ""
    rest = ", ".join(name for name in fitting if name != chosen)
    if chosen:
        return chosen, [f"{where}: other columns that may be labels: {rest} (--label-column)"] if rest else []
    doubt = f"which column holds labels? Say it with --label-column: {rest}" if rest else "no column can be labels"
    return "", [f"{where}: {doubt}"]


def check_column(flag: str, given: str | None, columns: Iterable[str], where: str) -> None:
    """Raises UserError if a column is given that is not there."""
    if given is not None and given not in columns:
        raise UserError(f"{flag} {given} is no column of {where}, which has {', '.join(columns) or 'none'}")


def by_role(columns: Columns, label: str, options: Opening) -> Columns:
    """The columns of labels and of groups, as in :class:`~frossl.data.parts.Part`."""
    return {role: typed(columns[name]) for role, name in ((LABELS, label), (GROUPS, options.group)) if name in columns}


def with_splits(columns: Columns, roles: Columns, options: Opening) -> Columns:
    """``roles`` and the column called split, if any, with "" where it is empty."""
    taken = (options.label_column, options.image_column, options.group)
    name = next((name for name in columns if name.lower() == "split" and name not in taken), None)
    return roles if name is None else roles | {SPLITS: ["" if word is None else word for word in columns[name]]}


def may_be_labels(values: list[Any]) -> bool:
    """Whether values are numbers, words or lists of them, of which words and whole numbers come again."""
    known = [tuple(value) if isinstance(value, list) else value for value in typed(values) if value is not None]
    if not known or not all(isinstance(value, bool | int | float | str | tuple) for value in known):
        return False
    if any(isinstance(part, list | dict | bytes) for value in known if isinstance(value, tuple) for part in value):
        return False
    different = len(set(known))
    return different > 1 and (all(isinstance(value, float) for value in known) or 2 * different <= len(known))


def typed(values: list[Any]) -> list[Any]:
    """Text of which all is numbers as numbers; with leading zeros or ``_`` it stays text, as in names of classes."""
    known = [value for value in values if value is not None]
    if not known or not all(isinstance(value, str) for value in known):
        return values
    if any((len(value) > 1 and value[0] == "0" and value.isdigit()) or "_" in value for value in known):
        return values
    for kind in (int, float):
        with suppress(ValueError):
            return [None if value is None else kind(value) for value in values]
    return values


def note_on_repeated(table: str, images: Iterable[Any]) -> list[str]:
    """A note where several rows name one image, else none."""
    counts = Counter(image for image in images if image is not None)
    rows, several = counts.total(), len(counts)
    return [f"{table}: {rows:,} rows name {several:,} images, of several the last counts"] if rows > several else []


class Rows(NamedTuple):
    """A table of images: the image of each row, what rows say by role, the column of labels, and notes."""

    images: list[int | None]
    roles: Columns
    label: str
    notes: list[str]


def find_rows(table: str, columns: Columns, names: Sequence[str], options: Opening) -> Rows | None:
    """The rows of a table that name one of ``names``, by its place among them; None if no row does."""
    found = _match(columns, names, options.image_column)
    if found is None:
        return None
    column, images = found
    label, notes = choose_label(columns, options, table, (column,))
    missing = [str(value) for value, image in zip(columns[column], images, strict=True) if image is None]
    bare = len(names) - len({*images} - {None})
    notes += [f"{len(missing):,} rows of {table} name no image, such as {missing[0]}"] if missing else []
    notes += [f"{bare:,} images have no row in {table}"] if bare else []
    notes += note_on_repeated(table, images)
    return Rows(images, with_splits(columns, by_role(columns, label, options), options), label, notes)


def _match(columns: Columns, names: Sequence[str], given: str | None) -> tuple[str, list[int | None]] | None:
    """The column that names images, and for each of its rows the place of the image in ``names``, if there is one.

    A row names an image by its path, the name of its file, or either without extension; the first that fits any.
    """
    choices = [given] if given in columns else list(columns)
    for whole, extension in ((True, True), (False, True), (True, False), (False, False)):
        places: dict[str, int | None] = {}
        for i, name in enumerate(names):
            key = _key(name, whole, extension)
            places[key] = None if key in places else i
        found = {
            column: [places.get(_key(str(row), whole, extension)) for row in columns[column]] for column in choices
        }
        counts = {column: sum(place is not None for place in images) for column, images in found.items()}
        best = max(counts, key=counts.__getitem__, default=None)
        if best is not None and counts[best]:
            return best, found[best]
    return None


def _key(text: str, whole: bool, extension: bool) -> str:
    """A path as rows and images are compared: with its folders if ``whole``, with or without its extension."""
    path = text.replace("\\", "/").removeprefix("./")
    stem, kind = os.path.splitext(path)
    path = stem if not extension and kind.lower() in EXTENSIONS else path
    return path if whole else path.rpartition("/")[2]


def labels_beside(folder: Path, parts: list[Part], options: Opening, notes: list[str]) -> tuple[list[Part], str]:
    """The parts with what tables beside their images say of these, and from which columns labels come, if any.

    Tables are looked for in ``folder`` and, below it, in the folders that hold the images of a part, and above these.

    Raises:
        UserError: no table has the column that was asked for.
    """
    prefixes = [part.sources.prefix for part in parts]  # type: ignore[attr-defined]
    above = {"", *(prefix[: i + 1] for prefix in prefixes for i, letter in enumerate(prefix) if letter == "/")}
    tables = [p + name for p in sorted(above) for name in sorted(os.listdir(folder / p)) if is_table(name)]
    names = [part.sources.name(i) for part in parts for i in range(len(part.sources))] if tables else []
    said: dict[str, dict[str, Any]] = {role: {} for role in ROLES}
    origins, known = [], {}
    for table in tables:
        prefix, _, file = table.rpartition("/")
        prefix += "/" * bool(prefix)
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        split = file.partition(".")[0].lower().removesuffix("_labels")
        if split in NAMES:
            inside = [name for name in inside if name.lower().startswith(f"{split}/")] or inside
        columns = _read_if_needed(folder / table, options, notes)
        known |= columns
        if not options.labels and not with_splits(columns, {}, options) and options.group not in columns:
            continue
        rows = find_rows(table, columns, inside, options)
        if rows is None:
            notes.append(f"{table} is not used: no column of it names the images")
            continue
        notes += rows.notes
        origins += [f"the column {rows.label!r} of {table}"] if rows.label else []
        for role, values in rows.roles.items():
            pairs = zip(rows.images, values, strict=True)
            said[role].update({prefix + inside[image]: value for image, value in pairs if image is not None})
    for flag, column in (("--label-column", options.label_column), ("--image-column", options.image_column)):
        check_column(flag, column, known, f"a table beside the images in {folder}")
    for i, part in enumerate(parts):
        own = [part.sources.name(k) for k in range(len(part.sources))] if any(said.values()) else []
        parts[i] = part._replace(columns={role: [v.get(name) for name in own] for role, v in said.items() if v})
    return parts, " and ".join(origins)


def _read_if_needed(path: Path, options: Opening, notes: list[str]) -> Columns:
    """The columns of a table; none, with a note, if it cannot be read and labels and groups are not asked for."""
    try:
        return read_table(path)
    except UserError:
        if options.labels or options.group is not None:
            raise
        notes.append(f"{path.name} cannot be read and is not used")
        return {}
