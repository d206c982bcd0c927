"""Parquet files and data sets saved by Hugging Face's ``datasets`` as a source: rows with encoded images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frossl.core.types import UserError
from frossl.data.decode import UnreadableError
from frossl.data.options import Opening
from frossl.data.parts import GROUPS, LABELS, Found, Part
from frossl.data.splits import choose_splits, split_files, split_of
from frossl.data.tables import LABEL_NAMES, Columns, check_column, choose_label
from frossl.data.targets import is_multi_hot

CACHE = "parquet-cache"
IMAGES = ("image", "img", "picture", "pixel_values", "jpg", "png")
"""Columns that are taken for images where there are several that hold bytes."""
SAMPLED = 10_000
"""Rows that are read to find the column of labels."""
SAVED = ("dataset_dict.json", "dataset_info.json", "state.json")
"""Files of a folder that ``save_to_disk`` wrote."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Encoded images in a column of a table of Arrow: bytes, or a struct of bytes and path.

    ``state`` is another one when the file is. A table that is memory-mapped by ``datasets`` is pickled as its path.
    """

    table: Any
    column: str
    file: str
    state: str

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, index: int, /) -> bytes:
        cell = self.table.column(self.column)[index].as_py()
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if content is None:
            raise UnreadableError("the row holds no image bytes")
        return content

    def name(self, index: int) -> str:
        cell = self.table.column(self.column)[index].as_py()
        return (isinstance(cell, dict) and cell.get("path")) or f"{self.file}:{index}"

    def stamp(self, index: int) -> str:
        return f"{self.state}:{index}"


def is_saved(path: Path) -> bool:
    """Whether ``path`` is a folder that ``save_to_disk`` wrote."""
    return (path / SAVED[0]).is_file() or all((path / name).is_file() for name in SAVED[1:])


def find_in_parquet(path: Path, files: Sequence[Path], options: Opening) -> Found:
    """Rows of Parquet files: a column of images, and perhaps one of labels, which are found or named by options.

    Names of files, or of their folders, give the splits. Needs the extra ``hf``.

    Raises:
        UserError: files cannot be read, or it is not clear which column holds images.
    """
    splits, notes = split_files(path, _one_configuration(path, files))
    tables = [(place, group[0], *_table(group, options)) for place, group in splits]
    return _found(path, f"Parquet files {path}", tables, options, notes)


def find_saved(path: Path, options: Opening) -> Found:
    """Rows of a data set, or of a dictionary of splits, that ``datasets`` saved to disk."""
    datasets = _import("datasets")
    try:
        saved = datasets.load_from_disk(str(path))
    except (OSError, ValueError, _import("pyarrow").ArrowException) as error:
        raise UserError(f"cannot read {path}, which datasets saved to disk: {error}") from error
    named = dict(saved) if isinstance(saved, dict) else {"train": saved}
    used = choose_splits(named)
    unused = [name for name in named if name not in used]
    tables = [(name, path, named[name].data, named[name].features, str(named[name]._fingerprint)) for name in used]
    notes = [f"splits not used: {', '.join(unused)}"] if unused else []
    return _found(path, f"data set saved in {path}", tables, options, notes)


def _found(
    path: Path, source: str, tables: list[tuple[str, Path, Any, Any, str]], options: Opening, notes: list[str]
) -> Found:
    file, first = tables[0][1:3]
    images = [_image_column(file, table.schema, options.image_column) for _, file, table, *_ in tables]
    sampled = _sampled(first)
    label, doubts = choose_label(sampled, options, file.name, (images[0],))
    check_column("--label-column", options.label_column, sampled, str(file))
    parts = []
    for image, (place, file, table, features, state) in zip(images, tables, strict=True):
        columns = {
            role: table.column(name).to_pylist()
            for role, name in ((LABELS, label), (GROUPS, options.group))
            if name in table.column_names
        }
        feature = features.get(label)
        names = tuple(getattr(getattr(feature, "feature", feature), "names", None) or ())
        if names and LABELS in columns:
            columns[LABELS] = _named(columns[LABELS], names, f"the label column of {place}")
        parts.append(Part(Rows(table, image, file.name, state), columns, place, names))
    origin = f"the column {label!r}" if label else "no column can be labels"
    return Found(path.resolve().stem, source, parts, notes + doubts, origin)


def _named(values: list[Any], names: tuple[str, ...], where: str) -> list[Any]:
    """Labels, or lists of them, with the names of classes in place of their numbers; None for -1.

    Lists of 0 and 1 for each class stay as they are.
    """
    lists = [value for value in values if isinstance(value, list)]
    if is_multi_hot(lists):
        return values
    known = {label for value in values for label in (value if isinstance(value, list) else [value])} - {None}
    if not all((0 if lists else -1) <= label < len(names) for label in known):
        raise UserError(
            f"{where} goes from {min(known)} to {max(known)}, with {len(names)} names of classes. Mend it, or open the "
            "data without labels (--no-labels)"
        )
    name = dict(enumerate(names))
    return [[name.get(x) for x in value] if isinstance(value, list) else name.get(value) for value in values]


def _sampled(table: Any) -> Columns:
    """Some values, evenly spaced, of every column that may hold labels."""
    places = np.unique(np.linspace(0, table.num_rows - 1, min(SAMPLED, table.num_rows)).astype(int))
    names = [name for name in table.column_names if _may_be_read(table.schema.field(name))]
    return {name: table.column(name).take(places).to_pylist() for name in names}


def _may_be_read(field: Any) -> bool:
    """Whether a column holds something small: no images or other bytes, unless they are called labels."""
    return not _holds_images(field) or (
        field.name in LABEL_NAMES and not _import("pyarrow").types.is_struct(field.type)
    )


def _holds_images(field: Any) -> bool:
    """Whether a column holds bytes, or structs with ``bytes``."""
    types = _import("pyarrow").types
    inner = [one for one in field.type if one.name == "bytes"] if types.is_struct(field.type) else [field]
    return any(types.is_binary(one.type) or types.is_large_binary(one.type) for one in inner)


def _image_column(file: Path, schema: Any, given: str | None) -> str:
    fitting = [field.name for field in schema if _holds_images(field)]
    fitting = [name for name in fitting if name not in LABEL_NAMES] or fitting
    chosen = given or next((name for name in IMAGES if name in fitting), fitting[0] if len(fitting) == 1 else "")
    if chosen in fitting:
        return chosen
    if fitting and not given:
        problem = f"several columns hold bytes: {', '.join(fitting)}; say which are images with --image-column"
    else:
        name = f"--image-column {given}" if given else "'image' or another name"
        problem = f"it has no column of images (bytes, or a struct with bytes) {name}, only {', '.join(schema.names)}"
    raise UserError(f"cannot read {file} as Parquet with a column of images: {problem}")


def _one_configuration(path: Path, files: Sequence[Path]) -> Sequence[Path]:
    """The files of the only configuration, which is a sub-folder of its own; UserError if there are several."""
    tops: dict[str, list[Path]] = {}
    for file in files:
        first = file.relative_to(path).parts[0] if path in file.parents else ""
        tops.setdefault("" if first in (file.name, "data") or split_of(Path(first)) else first, []).append(file)
    chosen = tops.get("default", files)
    if len(tops) > 1 and chosen is files:
        listed = ", ".join(sorted(filter(None, tops)))
        raise UserError(f"{path} holds several configurations: {listed}. Give one of them, such as {path}/{max(tops)}")
    return chosen


def _table(files: Sequence[Path], options: Opening) -> tuple[Any, Any, str]:
    """The rows of some files, their features, and what is another where the files are: in memory, or memory-mapped."""
    datasets, pa = _import("datasets"), _import("pyarrow")
    states = [(file, file.stat()) for file in files]
    stamp = "+".join(f"{file.name}-{state.st_size}-{state.st_mtime_ns}" for file, state in states)
    size = sum(state.st_size for _, state in states)
    try:
        if size <= options.memory_limit:
            import pyarrow.parquet as pq

            tables = [pq.read_table(file) for file in files]
            table = pa.concat_tables(tables, promote_options="permissive")
            return table, datasets.Features.from_arrow_schema(tables[0].schema), stamp
        cache = options.data_dir / CACHE
        options.log(f"copying {size / 1e9:.1f} GB of Parquet to {cache}, once, to read it in any order")
        found = datasets.Dataset.from_parquet([str(file) for file in files], cache_dir=str(cache))
        return found.data, found.features, stamp
    except (datasets.exceptions.DatasetGenerationError, pa.ArrowException, OSError, TypeError, ValueError) as error:
        raise UserError(
            f"cannot read {files[0]} as Parquet with a column of images: {error.__cause__ or error}"
        ) from error


def _import(name: str) -> Any:
    try:
        return __import__(name)
    except ModuleNotFoundError as error:
        raise UserError(f"Parquet files need the package 'datasets' ({error}): pip install 'frossl[hf]'") from error
