"""A folder of images as a data set: any depth, classes and splits only where the sub-folders say so."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from frossl.core.types import UserError
from frossl.data.formats import EXTENSIONS, NOT_IMAGES, has_image_content
from frossl.data.names import Names
from frossl.data.options import Opening
from frossl.data.parts import LABELS, Found, Part, concatenate
from frossl.data.splits import HELD_OUT, TRAIN, UNLABELLED, WORDS
from frossl.data.tables import is_table, labels_beside

IMAGE_FOLDERS = frozenset(["image", "images", "img", "imgs", "photos", "jpegimages", "leftimg8bit"])
MASK_FOLDERS = {
    *("mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "segmentations", "seg"),
    *("segmentationclass", "segmentationobject", "gt", "gtfine", "groundtruth", "ground_truth", "trimaps"),
}
"""Beside one of :data:`IMAGE_FOLDERS` they hold no further kind of image."""
MASKS = ("mask", "masks", "annot", "annotation", "annotations", "label", "labels", "seg", "segmentation", "gt")
MASK_OF = re.compile(rf"(.+?)[ ._-](?:{'|'.join(MASKS)})(?:_\d+)?", re.IGNORECASE)
"""Names of masks and of their folders that begin with the name of what they are of, such as 1_mask.png, train_masks."""


@dataclass(frozen=True, eq=False)
class Files:
    """Image files, as posix paths relative to ``root`` that all start with ``prefix``."""

    root: str
    paths: Sequence[str]
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
        return Files(self.root, Names(path for path in self.paths if path.startswith(prefix)), prefix)

    def select(self, places: Iterable[int]) -> Files:
        """Only the files at ``places``."""
        return Files(self.root, Names(self.paths[i] for i in places), self.prefix)

    def folders(self) -> list[str]:
        """The first sub-folder of each file below the prefix, empty when the file lies directly there."""
        own: dict[str, str] = {}  # one string for all files of a folder
        tops = (path[len(self.prefix) :].rpartition("/")[0].partition("/")[0] for path in self.paths)
        return [own.setdefault(top, top) for top in tops]

    def classes(self) -> tuple[str, ...]:
        """The sub-folders, if they look like classes."""
        names = set(self.folders())
        splits = {name.lower() for name in names} <= WORDS.keys()
        return () if len(names) < 2 or "" in names or splits else tuple(sorted(names))


def list_images(folder: Path) -> tuple[Files, list[str]]:
    """The image files of a folder, sorted, and notes that count, by extension, those known by content and the others.

    Hidden files are left out, links are followed. Raises UserError when no file has one of :data:`EXTENSIONS` or begins
    as an image does.
    """
    by_content, others = Counter[str](), Counter[str]()

    def found() -> Iterator[str]:
        for path in _walk(str(folder), "", frozenset()):
            extension = os.path.splitext(path)[1].lower()
            unknown = extension not in EXTENSIONS
            if unknown and (extension in NOT_IMAGES or not has_image_content(f"{folder}/{path}")):
                others[extension or "no extension"] += not is_table(os.path.basename(path))
                continue
            if unknown:
                by_content[extension or "no extension"] += 1
            yield path

    try:
        images = Names(found())
    except OSError as error:
        raise UserError(f"cannot list the folder {folder}: {error}") from error
    if not images:
        raise UserError(
            f"{folder} has no file of a format that is read. Looked, at any depth, for {' '.join(EXTENSIONS)}, and for "
            f"their content under names that do not tell; found {_listed(others) or 'no files at all'}. Convert images "
            "of other formats; give Parquet files and arrays by their own path."
        )
    notes = [f"images by their content: {_listed(by_content)}"] if by_content else []
    notes += [f"ignored files: {_listed(others)}; read are {' '.join(EXTENSIONS)}"] if +others else []
    return Files(str(folder), images), notes


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {extension}" for extension, count in counts.most_common(10))


def find_in_folder(folder: Path, options: Opening) -> Found:
    """The images of a folder, their splits and labels.

    ``train/`` (or ``training/``) with ``test/`` (or ``testing/``, ``val/``, ``valid/``, ``validation/``) are the
    splits, and ``unlabeled/`` is trained on too. Labels come from tables beside the images; else sub-folders are
    classes when two or more hold images and no image lies beside them, unless all are called like splits. Masks beside
    images are left out. Without such folders a column of a table may tell the splits.
    """
    files, notes = list_images(folder)
    files = _without_folder(_without_masks(files, notes))
    splits = [_without_folder(split) for split in _splits(files, options, notes)]
    parts = [Part(split, place=split.prefix or "the folder") for split in splits]
    parts, origin = labels_beside(folder, parts, options, notes)
    if options.labels and not origin:
        classes = splits[1].classes()
        origin = "sub-folders" if classes else "images do not all lie in two or more sub-folders, one for each class"
        for i, split in enumerate(splits[1:] if classes else (), 1):
            parts[i] = parts[i]._replace(
                columns=parts[i].columns | {LABELS: [name or None for name in split.folders()]}
            )
    unlabelled, train, *test = parts
    train = concatenate([train, unlabelled]) if len(unlabelled.sources) else train
    return Found(folder.resolve().name, f"folder {folder}", [train, *test], notes, origin)


def _without_folder(files: Files) -> Files:
    """The files below a folder that holds all of them and is called images."""
    while len(tops := set(files.folders())) == 1 and (top := tops.pop()).lower() in IMAGE_FOLDERS:
        files = files.below(f"{files.prefix}{top}/")
    return files


def _without_masks(files: Files, notes: list[str]) -> Files:
    """Only images, if masks lie beside them, in folders of their own or under names that end so; a note is added."""
    names = (files.name(i) for i in range(len(files)))
    folders, named = set(), {}
    for i, name in enumerate(names):
        folders.add(name.rpartition("/")[0])
        stem = os.path.splitext(name)[0]
        if stem.rstrip("_0123456789").lower().endswith(MASKS) and (of := MASK_OF.fullmatch(stem)):
            named[i] = of[1]
    masks = _mask_folders(folders)
    if named:
        stems = {os.path.splitext(files.name(i))[0] for i in range(len(files))}
        named = {i: of for i, of in named.items() if of in stems}
    found = {i for i in range(len(files)) if masks and files.name(i).startswith(masks)} | set(named)
    if not found:
        return files
    where = [*masks[:5], *(["..."] if len(masks) > 5 else []), *(files.name(i) for i in list(named)[:1])]
    notes.append(f"{len(found):,} masks of other images are left out: {', '.join(where)}")
    return files.select(i for i in range(len(files)) if i not in found)


def _mask_folders(folders: set[str]) -> tuple[str, ...]:
    """Those of masks, each with a slash at its end, of the ``folders`` that files lie in and those above."""
    folders = {"/".join(parts[:n]) for parts in (one.split("/") for one in folders) for n in range(1, len(parts) + 1)}
    siblings = defaultdict(set)
    for folder in folders - {""}:
        above, _, last = folder.rpartition("/")
        siblings[above].add(last.lower())

    def holds_masks(folder: str) -> bool:
        above, _, last = folder.rpartition("/")
        of, beside = MASK_OF.fullmatch(last.lower()), siblings[above]
        of_these = of is not None and of[1] in beside & (WORDS.keys() | IMAGE_FOLDERS)
        return of_these or (last.lower() in MASK_FOLDERS and bool(beside & IMAGE_FOLDERS))

    return tuple(f"{folder}/" for folder in sorted(folders - {""}) if holds_masks(folder))


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Relative paths of all visible files, sorted; a folder inside itself, through a link, is not entered again."""
    status = os.stat(folder)
    here = above | {(status.st_dev, status.st_ino)}
    if here == above:
        return
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            link = entry.is_symlink()
            if os.path.isdir(entry.path) if link else entry.is_dir():
                names.append(f"{entry.name}/")  # so that it sorts as the paths below it do
            elif link or entry.is_file():  # one that leads nowhere is named when it cannot be read
                names.append(entry.name)
    for name in sorted(names):
        if name.endswith("/"):
            yield from _walk(os.path.join(folder, name[:-1]), prefix + name, here)
        else:
            yield prefix + name


def _splits(files: Files, options: Opening, notes: list[str]) -> list[Files]:
    """Images without labels, training images, and held-out ones if there are any; with a note."""
    tops = {top.lower(): top for top in sorted({*files.folders()}, reverse=True)}
    parts = {name: files.below(f"{files.prefix}{top}/") for name, top in tops.items() if name in WORDS}
    train = next((parts[name] for name in TRAIN if name in parts), None)
    held_out = [parts[name] for name in HELD_OUT if name in parts]
    unlabelled = next((parts[name] for name in UNLABELLED if name in parts), files.select(()))
    if train is None or not (held_out or len(train) + len(unlabelled) == len(files)):
        return [files.select(()), files]
    classes = set(train.classes())
    alike = [part for part in held_out if classes.intersection(part.folders())]
    test = (alike if alike and options.labels else held_out)[:1]
    used = [part.prefix for part in (train, *test, unlabelled)]
    unused = [f"{files.prefix}{top}/" if top else "images beside them" for top in sorted({*files.folders()})]
    rest = ", ".join(place for place in unused if place not in used)
    if test:
        notes.append(f"splits come from {train.prefix} and {test[0].prefix}" + (f"; not used: {rest}" if rest else ""))
    if len(unlabelled):
        notes.append(f"{len(unlabelled):,} images of {unlabelled.prefix} are trained on too, without labels")
    return [unlabelled, train, *test]
