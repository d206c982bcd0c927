"""A folder of images as a data set: any depth, classes and splits only where the sub-folders say so."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from frossl.core.types import UserError
from frossl.data.build import build, check_same_classes, number_labels
from frossl.data.formats import EXTENSIONS, NOT_IMAGES, has_image_content
from frossl.data.options import Opening
from frossl.data.sources import Encoded
from frossl.data.types import Dataset

TRAIN_NAMES = ("train", "training")
HELD_OUT_NAMES = ("test", "testing", "val", "valid", "validation")
SPLIT_NAMES = {*TRAIN_NAMES, *HELD_OUT_NAMES, "unlabeled", "unlabelled"}


@dataclass(frozen=True, eq=False)
class Files:
    """Image files, as posix paths relative to ``root`` that all start with ``prefix``."""

    root: str
    paths: list[str]
    prefix: str = ""

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

    def below(self, prefix: str) -> Files:
        """Only the files whose path starts with ``prefix``."""
        return Files(self.root, [path for path in self.paths if path.startswith(prefix)], prefix)

    def folders(self) -> list[str]:
        """The first sub-folder of each file below the prefix, empty when the file lies directly there."""
        return [path[len(self.prefix) :].rpartition("/")[0].partition("/")[0] for path in self.paths]

    def classes(self) -> tuple[str, ...]:
        """The sub-folders, if they look like classes."""
        names = set(self.folders())
        splits = {name.lower() for name in names} <= SPLIT_NAMES
        return () if len(names) < 2 or "" in names or splits else tuple(sorted(names))


def list_images(folder: Path) -> tuple[Files, list[str]]:
    """The image files of a folder, sorted, and notes that count, by extension, those known by content and the others.

    Hidden files are left out, links are followed. Raises UserError when no file has one of :data:`EXTENSIONS` or begins
    as an image does.
    """
    images, by_content, others = [], Counter(), Counter()
    try:
        for path in sorted(_walk(str(folder), "", frozenset())):
            extension = os.path.splitext(path)[1].lower()
            unknown = extension not in EXTENSIONS
            if unknown and (extension in NOT_IMAGES or not has_image_content(f"{folder}/{path}")):
                others[extension or "no extension"] += 1
                continue
            images.append(path)
            if unknown:
                by_content[extension or "no extension"] += 1
    except OSError as error:
        raise UserError(f"cannot list the folder {folder}: {error}") from error
    if not images:
        raise UserError(
            f"{folder} has no file of a format that is read. Looked, at any depth, for {' '.join(EXTENSIONS)}, and for "
            f"their content under names that do not tell; found {_listed(others) or 'no files at all'}. Convert images "
            "of other formats; give Parquet files and arrays by their own path."
        )
    notes = [f"images by their content: {_listed(by_content)}"] if by_content else []
    notes += [f"ignored files: {_listed(others)}; read are {' '.join(EXTENSIONS)}"] if others else []
    return Files(str(folder), images), notes


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {extension}" for extension, count in counts.most_common(10))


def open_folder(folder: Path, options: Opening) -> Dataset:
    """A folder of images as a data set.

    ``train/`` (or ``training/``) with ``test/`` (or ``testing/``, ``val/``, ``valid/``, ``validation/``) are the
    splits, else a part is held out. Sub-folders are classes when two or more hold images and no image lies beside them,
    unless all are called like splits.
    """
    files, notes = list_images(folder)
    train, test = _splits(files, options, notes)
    classes = train.classes() if options.labels else ()
    if options.labels and test is not None:
        check_same_classes(classes, test.classes(), (train.prefix, test.prefix))
    if classes:
        notes.append(f"classes come from {len(classes)} sub-folders")
    elif options.labels:
        notes.append("no labels: images do not all lie in two or more sub-folders, one for each class")
    parts = [
        Encoded(part, number_labels(part.folders())[0] if classes else None)
        for part in (train, test)
        if part is not None
    ]
    return build(folder.resolve().name, f"folder {folder}", parts, classes, options, notes)


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
            link = entry.is_symlink()
            if os.path.isdir(entry.path) if link else entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", here)
            elif link or entry.is_file():  # one that leads nowhere is named when it cannot be read
                yield prefix + entry.name


def _splits(files: Files, options: Opening, notes: list[str]) -> tuple[Files, Files | None]:
    """The training and, if there are any, the held-out images; a note is added for what was passed over."""
    tops = set(files.folders())
    parts = {top.lower(): files.below(f"{top}/") for top in sorted(tops, reverse=True) if top.lower() in SPLIT_NAMES}
    train = next((parts[name] for name in TRAIN_NAMES if name in parts), None)
    held_out = [parts[name] for name in HELD_OUT_NAMES if name in parts]
    if train is None or not held_out:
        return (train if train and len(tops) == 1 else files), None
    alike = [part for part in held_out if part.classes() == train.classes()]
    test = (alike if alike and options.labels else held_out)[0]
    unused = sorted(f"{top}/" if top else "images beside them" for top in tops)
    unused = [place for place in unused if place not in (train.prefix, test.prefix)]
    rest = f"; not used: {', '.join(unused)}" if unused else ""
    notes.append(f"splits come from {train.prefix} and {test.prefix}{rest}")
    return train, test
