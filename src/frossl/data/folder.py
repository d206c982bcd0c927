"""A folder of images as a data set: any depth, classes and splits only where the sub-folders say so."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from frossl.core.types import UserError
from frossl.data.build import build, check_same_classes
from frossl.data.sources import Encoded, Options
from frossl.data.types import Dataset

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
TRAIN_NAMES = ("train", "training")
HELD_OUT_NAMES = ("test", "testing", "val", "valid", "validation")
SPLIT_NAMES = {*TRAIN_NAMES, *HELD_OUT_NAMES, "unlabeled", "unlabelled"}


@dataclass(frozen=True, eq=False)
class Files:
    """Image files as posix paths relative to ``root``."""

    root: str
    paths: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int, /) -> str:
        return f"{self.root}/{self.paths[index]}"

    def name(self, index: int) -> str:
        return os.fsencode(self.paths[index]).decode(errors="replace")

    def stamp(self, index: int) -> str:
        try:
            status = os.stat(self[index])
        except OSError:
            return "cannot be read"
        # Archives and copies may bring a time of modification, but not one of change.
        return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"

    def take(self, index: np.ndarray) -> Files:
        return Files(self.root, [self.paths[i] for i in index])

    def below(self, prefix: str) -> Files:
        """Only the files whose path starts with ``prefix``."""
        return Files(self.root, [path for path in self.paths if path.startswith(prefix)])


def list_images(folder: Path) -> tuple[Files, str]:
    """The image files of a folder, sorted, and a phrase that counts the other files by extension.

    Hidden files are left out, links are followed. Raises UserError when no file has one of :data:`EXTENSIONS`.
    """
    try:
        everything = sorted(_walk(str(folder), "", frozenset()))
    except OSError as error:
        raise UserError(f"cannot list the folder {folder}: {error}") from error
    images = [path for path in everything if _extension(path) in EXTENSIONS]
    others = Counter(_extension(path) or "no extension" for path in everything if _extension(path) not in EXTENSIONS)
    counts = ", ".join(f"{count:,} {extension}" for extension, count in others.most_common(10))
    if not images:
        raise UserError(
            f"{folder} has no file of a format that is read. Looked, at any depth, for {' '.join(EXTENSIONS)}; "
            f"found {counts or 'no files at all'}. Convert images of other formats; give Parquet files and arrays by "
            "their own path."
        )
    return Files(str(folder), images), counts


def open_folder(folder: Path, options: Options) -> Dataset:
    """A folder of images as a data set.

    ``train/`` (or ``training/``) with ``test/`` (or ``testing/``, ``val/``, ``valid/``, ``validation/``) are the
    splits, else a part is held out. Sub-folders are classes when two or more hold images and no image lies beside them,
    unless all are called like splits.
    """
    files, others = list_images(folder)
    notes = [f"ignored files: {others}; read are {' '.join(EXTENSIONS)}"] if others else []
    prefix, test_prefix = _split_prefixes(files, options, notes)
    train = files.below(prefix)
    classes = _classes(train, prefix) if options.labels else ()
    test = None if test_prefix is None else files.below(test_prefix)
    if options.labels and test is not None and test_prefix is not None:
        check_same_classes(classes, _classes(test, test_prefix), (prefix, test_prefix))
    if classes:
        notes.append(f"classes come from {len(classes)} sub-folders")
    elif options.labels:
        notes.append("no labels: images do not all lie in two or more sub-folders, one for each class")
    return build(
        folder.resolve().name,
        f"folder {folder}",
        _labelled(train, prefix, classes),
        None if test is None or test_prefix is None else _labelled(test, test_prefix, classes),
        classes,
        options,
        notes,
    )


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Relative paths of all visible files; a folder inside itself, through a link, is not entered again."""
    status = os.stat(folder)
    here = above | {(status.st_dev, status.st_ino)}
    if here == above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                yield from _walk(entry.path, f"{prefix}{entry.name}/", here)
            elif entry.is_symlink() or entry.is_file():
                yield prefix + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, which is named when it cannot be read
        return False


def _extension(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def first_folder(path: str, prefix: str = "") -> str:
    """The first sub-folder on a path below ``prefix``, empty when the file lies directly there."""
    return path[len(prefix) :].rpartition("/")[0].partition("/")[0]


def _classes(files: Files, prefix: str) -> tuple[str, ...]:
    names = {first_folder(path, prefix) for path in files.paths}
    splits = {name.lower() for name in names} <= SPLIT_NAMES
    return () if len(names) < 2 or "" in names or splits else tuple(sorted(names))


def _labelled(files: Files, prefix: str, classes: tuple[str, ...]) -> Encoded:
    return label(files, [first_folder(path, prefix) for path in files.paths], classes)


def label(files: Files, names: Sequence[str], classes: tuple[str, ...]) -> Encoded:
    """Files with the class name of each; no labels when there are no classes."""
    number = {name: i for i, name in enumerate(classes)}
    return Encoded(files, np.array([number[name] for name in names], dtype=np.int64) if classes else None)


def _split_prefixes(files: Files, options: Options, notes: list[str]) -> tuple[str, str | None]:
    """Where the training and the held-out images lie; a note is added for what was passed over."""
    tops = {first_folder(path) for path in files.paths}
    prefixes = {top.lower(): f"{top}/" for top in sorted(tops, reverse=True) if top}
    train = next((prefixes[name] for name in TRAIN_NAMES if name in prefixes), None)
    held_out = [prefixes[name] for name in HELD_OUT_NAMES if name in prefixes]
    if train is None or not held_out:
        return (train if train and len(tops) == 1 else ""), None
    wanted = _classes(files.below(train), train)
    alike = [prefix for prefix in held_out if _classes(files.below(prefix), prefix) == wanted]
    test = (alike if alike and options.labels else held_out)[0]
    unused = sorted(f"{top}/" if top else "images beside them" for top in tops if f"{top}/" not in (train, test))
    notes.append(f"splits come from {train} and {test}" + (f"; not used: {', '.join(unused)}" if unused else ""))
    return train, test
