"""Open images by a name, or from folders, lists, shards, Parquet files, or arrays."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frossl.core.near import did_you_mean, is_clearly_a_path, near_path
from frossl.core.registry import unknown_name
from frossl.core.types import UserError
from frossl.data import arrays, hf, lists, shards
from frossl.data.folder import Files, find_in_folder
from frossl.data.formats import EXTENSIONS
from frossl.data.hub import PREFIX, fetch
from frossl.data.names import Names
from frossl.data.options import COLUMNS, DataOptions, Opening
from frossl.data.parts import Found, Part, divide, join, to_dataset
from frossl.data.records import DATASETS
from frossl.data.tables import is_table
from frossl.data.types import Dataset

FEW_IMAGES = 100
"""Most images beside Parquet files, such as those of a README."""
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")


def open_data(source: str, options: DataOptions | None = None, **changes: Any) -> Dataset:
    """Open a named data set, a folder of images, a list of them, tar shards, Parquet, or arrays of NumPy.

    Several are joined by ``+``, or given by a pattern such as ``photos/*/raw`` or ``train-{000..146}.tar``.

    ``changes`` are fields of :class:`~frossl.data.options.Opening` and win over ``options``:
    ``open_data("images", cache=256, memory_limit=2**30)``. Where the data bring no held-out images, the fraction
    ``held_out`` (1 to 10,000 images) is chosen by ``seed``, evenly over the classes. With ``cache``, images of files
    are decoded once, to a shorter side of at most that many pixels, and memory-mapped from a store below ``data_dir``.

    Raises:
        UserError: there is nothing of that name, it cannot be read, or the options do not fit it.
    """
    opening = Opening(**({} if options is None else options.data_options()) | changes)
    there = _exists(source)
    as_arrays = there and source.lower().endswith(arrays.EXTENSIONS) and Path(source).expanduser().is_file()
    if source in DATASETS or as_arrays:
        given = [name for name in COLUMNS if getattr(opening, name) is not None]
        if given:
            flag = f"--{given[0].replace('_', '-')}"
            raise UserError(f"{flag}: the images of {source} have neither columns nor names; leave it out")
    if source in DATASETS:
        if there:
            opening.log(f"{source} is read as the name of a data set; for the folder of that name write ./{source}")
        return DATASETS[source].open(opening)
    if as_arrays:
        return arrays.open_arrays(Path(source).expanduser(), opening)
    return to_dataset(join([divide(_find(paths, opening)) for paths in _grouped(_paths(source, opening))]), opening)


def join_sources(args: Sequence[str]) -> list[str]:
    """Arguments of a command line with its first words, those before any flag, as one DATA."""
    first = next((i for i, arg in enumerate(args) if arg.startswith("-")), len(args))
    return ["+".join(args[:first]), *args[first:]] if first else list(args)


def parts_of(source: str) -> list[str]:
    """The sources that ``source`` joins, or itself if it is a name or there is a file or folder of that name."""
    return [source] if source in DATASETS or _exists(source) else [part.strip() for part in source.split("+")]


def resolve_source(source: str, links: bool = True) -> str:
    """``source`` with absolute paths, ``links`` resolved or not: equal if the images are the same."""

    def whole(part: str) -> str:
        if part in DATASETS or part.startswith(PREFIX):
            return part
        path = Path(part).expanduser()
        return str(path.resolve() if links else path.absolute())

    return "+".join(map(whole, parts_of(source)))


def is_there(source: str) -> bool:
    """Whether all parts of ``source`` are names, on the Hub, or match something on the disk."""

    def found(part: str) -> bool:
        named = part in DATASETS or part.startswith(PREFIX)
        return named or _exists(part) or any(glob.glob(text) for text in _braces(os.path.expanduser(part)))

    return all(map(found, parts_of(source)))


def source_name(source: str) -> str:
    """A name for directories, from the last folder of each part, without signs of patterns."""
    paths = [os.path.normpath(Path(part).expanduser().absolute()) for part in parts_of(source)]
    names = [Path(path).name.lstrip(".") for path in paths]  # of . and .. the folder's own name, and nothing hidden
    return "+".join(re.sub(r"[*?{}\[\],]+", "_", name) for name in names if name)[:100]


def _exists(source: str) -> bool:
    try:
        return Path(source).expanduser().exists()
    except (OSError, RuntimeError) as error:  # no permission, too long a name, no such home directory
        raise UserError(f"cannot open {source}: {getattr(error, 'strerror', None) or error}") from None


def _paths(source: str, opening: Opening) -> list[Path]:
    """The files and folders of ``source``: patterns expanded, files of the Hub fetched."""
    found = []
    for part in parts_of(source):
        if part.startswith(PREFIX):
            found.append(fetch(part, opening.log))
        elif _exists(part):
            found.append(Path(part).expanduser())
        elif set(part) & set("*?[{"):
            matches = [Path(match) for text in _braces(os.path.expanduser(part)) for match in sorted(glob.glob(text))]
            if not matches:
                raise UserError(f"nothing matches {part!r}")
            found += matches
        elif part in DATASETS:
            raise UserError(f"{part} is a data set by name, which cannot be joined with others; give it alone")
        else:
            raise _nothing_there(part)
    return found


def _nothing_there(part: str) -> UserError:
    """The error for what is neither on the disk nor a name, with what may be meant."""
    if is_clearly_a_path(part):
        return UserError(f"no folder or file {part!r} exists.{did_you_mean(part) or ' Check the path.'}")
    beside = f", but {str(near)!r} does" if (near := near_path(part)) else ""
    return UserError(f"no folder {part!r} exists{beside}, and {unknown_name('data set', part, list(DATASETS))}")


def _braces(pattern: str) -> list[str]:
    """A pattern with ``{000..146}`` or ``{train,val}`` as several.

    >>> _braces("{a,b}-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']
    """
    match = BRACES.search(pattern)
    if match is None:
        return [pattern]
    choices = match[1].split(",")
    if numbers := RANGE.fullmatch(match[1]):
        choices = [f"{i:0{len(numbers[1])}}" for i in range(int(numbers[1]), int(numbers[2]) + 1)]
    return [text for choice in choices for text in _braces(pattern[: match.start()] + choice + pattern[match.end() :])]


def _grouped(paths: Sequence[Path]) -> list[list[Path]]:
    """Files of one kind, such as shards, are one source; each folder and each list is its own."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        extension = "" if path.is_dir() else path.suffix.lower()
        kind = "image" if extension in EXTENSIONS else extension if extension in (".tar", ".parquet") else str(path)
        groups.setdefault(kind, []).append(path)
    return list(groups.values())


def _find(paths: list[Path], opening: Opening) -> Found:
    place, extension = paths[0], paths[0].suffix.lower()
    if place.is_dir():
        if hf.is_saved(place):
            return hf.find_saved(place, opening)
        if paths := _files_of(place, ".parquet", FEW_IMAGES):
            return hf.find_in_parquet(place, paths, opening)
        if paths := _files_of(place, ".tar", 0):
            return shards.find_in_shards(place, paths, opening)
        return find_in_folder(place, opening)
    if len(paths) > 1:
        place = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    if extension == ".parquet":
        return hf.find_in_parquet(place, paths, opening)
    if extension == ".tar":
        return shards.find_in_shards(place, paths, opening)
    if extension in lists.KINDS:
        return lists.find_in_list(place, opening)
    if extension in EXTENSIONS and len(paths) > 1:
        files = Files(str(place), Names(sorted(os.path.relpath(path, place) for path in paths)))
        return Found(place.name, f"{len(paths):,} images in {place}", [Part(files, place=str(place))], [])
    raise UserError(
        f"{place} is a file{f' of type {extension}' if extension else ''}. Give a folder of images, a list of them "
        "(.txt, .csv), .parquet or .tar files or a folder of them, arrays in an .npy or .npz file alone, or the name "
        "of a data set."
    )


def _files_of(folder: Path, extension: str, images: int) -> list[Path]:
    """The files of a kind in a folder or its ``data/``, else at any depth unless more than ``images`` lie beside them.

    Without ``images``, they are looked for at any depth alone.
    """
    for place in (folder, folder / "data") if images else ():
        if here := sorted(path for path in place.glob(f"*{extension}") if _shown(path.name)):
            return here
    found, seen = [], 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in names if name.lower().endswith(extension) and _shown(name)]
        seen += sum(name.lower().endswith(EXTENSIONS) for name in names)
        if seen > images:
            return []
    return sorted(found)


def _shown(name: str) -> bool:
    return not (name.startswith(".") or is_table(name))
