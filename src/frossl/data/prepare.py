"""ImageNet-100 and Tiny ImageNet, laid out as ``train/CLASS/`` and ``val/CLASS/`` from what people have of them."""

from __future__ import annotations

import os
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from frossl.core.files import write_folder
from frossl.core.types import UserError
from frossl.data.formats import EXTENSIONS
from frossl.data.options import DataOptions, Log, quiet
from frossl.data.records import DATASETS, Record
from frossl.data.threads import counted, in_threads
from frossl.data.trees import Mode, Tree, join
from frossl.data.wnids import WNID, devkit_ids, fingerprint, label_table, listed, read_ids

ROOTS = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
"""Where ``train/`` and ``val/`` of ImageNet lie: in what is given, or below it as Kaggle has it."""
DEVKIT = "ILSVRC2012_devkit_t12/data"
LABEL_FILES = (
    *("val_annotations.txt", "LOC_val_solution.csv", "val.txt"),
    *("ILSVRC2012_validation_ground_truth.txt", "imagenet_2012_validation_synset_labels.txt"),
)
"""Files with the class of each image of a flat ``val/``, whose lines :func:`frossl.data.wnids.label_table` reads."""
KINDS: dict[Mode, str] = {
    "link": "hard links, which take no space, to files in {source}",
    "symlink": "symbolic links to files in {source}, which must stay there",
    "copy": "copies, {size:.2g} GB, of files in {source}",
}


@dataclass(frozen=True)
class Prepared:
    """What was made: how many images of each class are in each split, and, in words, what they are, where the labels of
    a flat ``val/`` came from, the SHA-256 of the list of classes, and which numbers are not the known ones."""

    folder: Path
    train: Counter[str]
    val: Counter[str]
    facts: tuple[str, ...]
    odd: tuple[str, ...]


def prepare(
    name: str,
    source: Path,
    to: Path | None = None,
    *,
    classes: Path | None = None,
    labels: Path | None = None,
    mode: Mode | Literal["auto"] = "auto",
    log: Log = quiet,
) -> Prepared:
    """Makes the folder that :func:`frossl.data.open_data` opens as the data set ``name``, or nothing at all.

    ``source`` is a folder or a zip with ``train/CLASS/`` (perhaps with ``images/`` in it) and ``val/``, in class
    folders or flat with a file of :data:`LABEL_FILES`, or ``labels``. ``classes`` is a list of WordNet ids in place of
    that of the record. ``mode`` auto makes hard links if it can, else symbolic links, else copies.

    Raises:
        UserError: there is something at ``to``, ``source`` lacks images of a class or cannot be read, held-out images
            have no known class, a link cannot be made, or the disk is too full for copies.
    """
    record = DATASETS[name]
    to = to.expanduser() if to else DataOptions.data_dir / record.folder
    _check_target(record, to)
    ids = read_ids(classes) if classes else record.ids()
    if len(ids) != record.class_count:
        raise UserError(f"{classes} has {len(ids)} classes, and {record.name} has {record.class_count}")
    source = source.expanduser().absolute()
    try:
        tree = Tree(source)
        root = _root(tree, record)
        found = {"train": {wnid: _images(tree, join(root, "train", wnid)) for wnid in ids}}
        found["val"], origin = _val(tree, root, ids, labels)
        targets = {
            f"{split}/{wnid}/{PurePosixPath(path).name}": path
            for split, images in found.items()
            for wnid in ids
            for path in images.get(wnid, ())
        }
        counts = {split: Counter({w: len(images.get(w, ())) for w in ids}) for split, images in found.items()}
        _check_classes(record, source, ids, counts)
        kind = _kind(tree, next(iter(targets.values())), to) if mode == "auto" or tree.archive else mode
        if mode not in ("auto", kind):
            raise UserError(f"--mode {mode}: images in a zip can only be copied; unpack it, or leave --mode out")
        size = _announce_copies(tree, list(targets.values()), to, log) if kind == "copy" else 0
        write_folder(to, partial(_fill, tree, targets, kind, log))
    except OSError as error:
        reason = f"{error.filename or source}: {error.strerror or error}"
        raise UserError(f"could not make {to} of {source}: {reason}. Nothing was made") from None
    facts = (
        KINDS[kind].format(source=source, size=size / 1e9),
        *origin,
        fingerprint(ids, record.ids(), record.class_list),
    )
    odd = _odd_counts(record, counts, known=ids == record.ids())
    return Prepared(to, counts["train"], counts["val"], facts, tuple(odd))


def _check_target(record: Record, to: Path) -> None:
    if to.name != record.folder:
        raise UserError(f"{record.name} is found in a folder called {record.folder}: give --to {to / record.folder}")
    if os.path.lexists(to):
        raise UserError(
            f"{to} is there already, and is left as it is. Is it {record.name}? Then frossl pretrain {record.name} "
            f"--data-dir {to.parent} opens it. Else remove it, or give another place with --to"
        )


def _root(tree: Tree, record: Record) -> str:
    for root in (*ROOTS, record.folder):
        if {"train", "val"} <= set(tree.names(root)):
            return root
    holds = tree.names("")
    raise UserError(
        f"{tree.place} has no train/ with val/ beside it; it holds {listed(holds) if holds else 'nothing'}. Give the "
        "folder of ImageNet or Tiny ImageNet that holds both; archives in it have to be unpacked"
    )


def _images(tree: Tree, folder: str) -> list[str]:
    """Paths of the images in ``folder`` or, if there are none, in its ``images/``."""
    for place in (folder, f"{folder}/images"):
        found = [f"{place}/{name}" for name in tree.names(place) if name.lower().endswith(EXTENSIONS)]
        if found:
            return found
    return []


def _val(tree: Tree, root: str, ids: tuple[str, ...], labels: Path | None) -> tuple[dict[str, list[str]], list[str]]:
    """Held-out images of each class, and a note on what tells the classes of a flat ``val/``."""
    folder = join(root, "val")
    if labels is None and any(WNID.fullmatch(name) for name in tree.names(folder)):
        return {wnid: _images(tree, join(folder, wnid)) for wnid in ids}, []
    images = _images(tree, folder)
    if not images:
        flag = ", for which --labels is meant" if labels else " and no class folders called like n01440764"
        raise UserError(f"{tree.place / folder} holds no images beside each other{flag}")
    of_image, place = _labels(tree, root, labels)
    unknown = [path for path in images if PurePosixPath(path).stem not in of_image]
    if unknown:
        raise UserError(f"{place} has no class for {listed(unknown)} of the {len(images):,} images in {folder}/")
    found = defaultdict(list)
    for path in images:
        found[of_image[PurePosixPath(path).stem]].append(path)
    return found, [f"held-out labels come from {place}"]


def _labels(tree: Tree, root: str, given: Path | None) -> tuple[dict[str, str], str]:
    """The class of each image of a flat ``val/`` from the file given, or from the first that is found; and its path."""
    if given is not None:
        tree, path = Tree(given.parent), given.name
    else:
        parts = PurePosixPath(root).parts
        bases = [join(root, "val"), *(join(*parts[:depth]) for depth in range(len(parts), -1, -1))]
        places = [place for base in bases for place in (base, join(base, DEVKIT))]
        path = next((join(p, name) for p in places for name in tree.names(p) if name in LABEL_FILES), "")
        if not path:
            raise UserError(
                f"the images of {tree.place / root / 'val'} are in no class folders, and no file tells their classes: "
                f"looked for {', '.join(LABEL_FILES)} there, above, and in {DEVKIT}/. Give one with --labels FILE"
            )
    folder, place = join(*PurePosixPath(path).parts[:-1]), str(tree.place / path)
    table = join(folder, "meta.mat")

    def devkit() -> dict[int, str]:
        return devkit_ids(tree.read(table), str(tree.place / table)) if "meta.mat" in tree.names(folder) else {}

    return label_table(tree.read(path).decode(errors="replace"), place, devkit), place


def _check_classes(record: Record, source: Path, ids: tuple[str, ...], counts: dict[str, Counter[str]]) -> None:
    missing: defaultdict[str, list[str]] = defaultdict(list)
    for wnid in ids:
        without = " and ".join(f"{split}/" for split, found in counts.items() if not found[wnid])
        missing[without].append(wnid)
    missing.pop("", None)
    if missing:
        said = "; ".join(f"in {places} of {', '.join(names)}" for places, names in missing.items())
        raise UserError(
            f"{source} lacks images of {sum(map(len, missing.values()))} of the {len(ids)} classes of {record.name}: "
            f"none {said}. Nothing was made"
        )


def _odd_counts(record: Record, counts: dict[str, Counter[str]], known: bool) -> list[str]:
    """Where there are more or fewer images than the record has, of every class if all should have as many."""
    notes = []
    for split, expected in (("train", record.train), ("val", record.test)):
        each, rest = divmod(expected, record.class_count)
        found = counts[split]
        odd = [f"{wnid} has {n}" for wnid, n in found.items() if n != each and not rest]
        if odd:
            notes.append(f"{split}/: every class of {record.name} has {each} images, but here {listed(odd)}")
        elif rest and known and found.total() != expected:
            notes.append(f"{split}/: {found.total():,} images, where {record.name} is known to have {expected:,}")
    return notes


def _kind(tree: Tree, image: str, to: Path) -> Mode:
    """The first kind of link that can be made, tried with one image; of a zip there are copies only."""
    if tree.archive:
        return "copy"
    to.parent.mkdir(parents=True, exist_ok=True)
    trial = to.with_name(f".{to.name}.trial")
    for kind in ("link", "symlink"):
        trial.unlink(missing_ok=True)
        try:
            tree.put(image, trial, kind)
        except OSError:
            continue
        trial.unlink()
        return kind
    return "copy"


def _announce_copies(tree: Tree, images: list[str], to: Path, log: Log) -> int:
    """Logs how many bytes copies take, and returns it; UserError if the disk has less space."""
    size = sum(map(tree.size, images))
    to.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(to.parent).free
    if size > free:
        raise UserError(f"copies need {size / 1e9:.2g} GB, and {to.parent} has {free / 1e9:.2g} GB free")
    log(f"copying {len(images):,} images, {size / 1e9:.2g} GB, to {to}")
    return size


def _fill(tree: Tree, targets: dict[str, str], mode: Mode, log: Log, folder: Path) -> None:
    for place in {os.path.dirname(target) for target in targets}:
        (folder / place).mkdir(parents=True)
    files = list(targets.items())

    def put(i: int) -> None:
        target, source = files[i]
        try:
            tree.put(source, folder / target, mode)
        except OSError as error:
            raise UserError(
                f"could not make a {mode} of {tree.place / source}: {error.strerror or error}. Nothing was made"
                f"{'' if mode == 'copy' else '; --mode copy needs no links'}"
            ) from None

    for _ in counted(in_threads(put, len(files), None), "placed", 1, len(files), log):
        pass
