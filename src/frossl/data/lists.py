"""A list of images as a source: a text file with a path a line, or a table that names files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from frossl.core.types import UserError
from frossl.data import tables
from frossl.data.folder import Files, list_images
from frossl.data.names import Names
from frossl.data.options import Opening
from frossl.data.parts import Found, Part
from frossl.data.tables import Columns, read_table

KINDS = (".txt", ".csv", ".tsv", ".jsonl")
SEPARATORS = (None, "\t", ",", ";", " ")
TRIED = 100
"""Paths that are looked for to find out how a list is written."""


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
    choices = [options.image_column] if options.image_column in columns else [*columns]
    counts = {name: _there(folder, map(str, columns[name][:TRIED])) for name in choices}
    paths = max(counts, key=counts.__getitem__, default="")
    if counts.get(paths):
        last = {str(path): row for row, path in enumerate(columns[paths]) if path is not None}
        listed = [(image, row) for path, row in last.items() for image in _images(folder, path)]
        files, rows = Files(str(folder), Names(image for image, _ in listed)), [row for _, row in listed]
        label, notes = tables.choose_label(columns, options, file.name, (paths,))
        roles = tables.with_splits(columns, tables.by_role(columns, label, options), options)
        notes += tables.note_on_repeated(file.name, columns[paths])
    else:
        files, notes = list_images(folder)
        found = tables.find_rows(file.name, columns, [files.name(i) for i in range(len(files))], options)
        if found is None:
            raise UserError(
                f"{file} lists no image that is there: paths, one a line or in a column, are relative to its folder"
            )
        label, roles, notes = found.label, found.roles, notes + found.notes
        last = {image: row for row, image in enumerate(found.images) if image is not None}
        files, rows = files.select(last), list(last.values())
    tables.check_column("--label-column", options.label_column, columns, str(file))
    part = Part(files, {role: [values[row] for row in rows] for role, values in roles.items()}, file.name)
    return Found(file.stem, f"images of {file}", [part], notes, f"the column {label!r} of {file.name}" if label else "")


def _lines(file: Path, folder: Path) -> Columns:
    """Paths and labels of a text file, split at the first separator by which a path exists."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    lines = [line for line in lines if line]
    for separator in SEPARATORS:
        pairs = [line.rsplit(separator, 1) if separator else [line] for line in lines]
        paths = [path for path, *_ in pairs]
        if _there(folder, paths[:TRIED]):
            labels = [rest[0].strip() if rest else None for _, *rest in pairs]
            return {"path": paths} | ({"label": labels} if separator else {})
    return {"path": lines}


def _there(folder: Path, paths: Iterable[str]) -> int:
    """How many of the paths exist."""
    return sum(os.path.exists(folder / path) for path in paths)


def _images(folder: Path, path: str) -> list[str]:
    """The images that a path stands for, relative to ``folder``: a file, or all images of a folder."""
    path = os.path.relpath(folder / os.path.expanduser(path), folder)
    if not os.path.isdir(folder / path):
        return [path]
    inside = list_images(folder / path)[0]
    return [f"{path}/{name}" for name in inside.paths]
