"""A list of images as a source: a text file with a path a line, or a table that names files."""

from __future__ import annotations

import os
from pathlib import Path

from frossl.core.types import UserError
from frossl.data.folder import Files, list_images
from frossl.data.names import Names
from frossl.data.options import Opening
from frossl.data.parts import Found, Part
from frossl.data.tables import Columns, choose_column, find_rows, find_splits, note_on_repeated, read_table, typed

KINDS = (".txt", ".csv", ".tsv", ".jsonl")
SEPARATORS = (None, "\t", ",", ";", " ")
TRIED = 100
"""So many paths are looked for to find out how a list is written."""


def find_in_list(file: Path, options: Opening) -> Found:
    """The images that a file lists, with labels if it has any. Paths are relative to its folder.

    A line of text is a path, or a path and a label behind a tab, comma, semicolon or space; a path may be a folder. A
    table may also name images below its folder without their folders or extension.

    Raises:
        UserError: it names nothing that is there, or cannot be read.
    """
    folder = file.resolve().parent
    columns = _lines(file, folder) if file.suffix.lower() == ".txt" else read_table(file)
    if columns and _there(folder, [*columns][:1]):  # its first row is no header
        columns = read_table(file, header=False)
    paths = _path_column(columns, folder, options.image_column)
    if paths is not None:
        label, doubt = choose_column(columns, options.label_column, file.name, (paths, options.group or paths))
        last = {str(path): row for row, path in enumerate(columns[paths]) if path is not None}
        listed, given = [_images(folder, path) for path in last], list(last.values())
        files = Files(str(folder), Names(path for images in listed for path in images))
        rows, notes = [row for row, images in zip(given, listed, strict=True) for _ in images], [doubt] * bool(doubt)
        notes += note_on_repeated(file.name, columns[paths])
    else:
        files, notes = list_images(folder)
        found = find_rows(file.name, columns, [files.name(i) for i in range(len(files))], options)
        if found is None:
            raise UserError(
                f"{file} lists no image that is there: paths, one a line or in a column, are relative to its folder"
            )
        label, notes = found.label, notes + found.notes
        last = {image: row for row, image in enumerate(found.images) if image is not None}
        files, rows = files.select(last), list(last.values())
        notes += note_on_repeated(file.name, found.images)
    if options.label_column and not label:
        raise UserError(f"--label-column {options.label_column}: {file} has no such column, only {', '.join(columns)}")
    labels, groups = (
        [values[row] for row in rows] if (values := typed(columns.get(column or "", []))) else None
        for column in (label, options.group)
    )
    words = find_splits(columns, options)
    splits = None if words is None else [words[row] for row in rows]
    part = Part(files, labels, groups=groups, place=file.name, splits=splits)
    return Found(file.stem, f"images of {file}", [part], notes, f"the column {label!r} of {file.name}" if label else "")


def _lines(file: Path, folder: Path) -> Columns:
    """Paths and labels of a text file, written as the first separator tells by which a path is there."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    lines = [line for line in lines if line]
    for separator in SEPARATORS:
        pairs = [line.rsplit(separator, 1) if separator else [line] for line in lines]
        if _there(folder, [path for path, *_ in pairs]):
            labels = [rest[0].strip() if rest else None for _, *rest in pairs]
            return {"path": [path for path, *_ in pairs]} | ({"label": labels} if separator else {})
    return {"path": lines}


def _there(folder: Path, paths: list[str]) -> int:
    """How many of the first paths exist."""
    return sum(os.path.exists(folder / path) for path in paths[:TRIED])


def _path_column(columns: Columns, folder: Path, given: str | None) -> str | None:
    """The column whose values are paths that exist, most of all if there are several."""
    choices = [given] if given in columns else [*columns]
    counts = {name: _there(folder, [str(value) for value in columns[name]]) for name in choices}
    best = max(counts, key=counts.__getitem__, default=None)
    return best if best is not None and counts[best] else None


def _images(folder: Path, path: str) -> list[str]:
    """What a line stands for, relative to ``folder``: a file, or all images of a folder."""
    path = os.path.relpath(folder / os.path.expanduser(path), folder)
    if not os.path.isdir(folder / path):
        return [path]
    inside = list_images(folder / path)[0]
    return [f"{path}/{os.path.relpath(inside[i], folder / path)}" for i in range(len(inside))]
