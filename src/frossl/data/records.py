"""Named data sets: the facts of each from ``datasets.toml``, and how to get its images."""

from __future__ import annotations

import gzip
import tomllib
import zlib
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frossl.core.config import from_plain
from frossl.core.registry import Registry
from frossl.core.types import UserError
from frossl.data.build import assemble
from frossl.data.folder import Files, list_images
from frossl.data.options import Opening
from frossl.data.parts import LABELS, Found, Part, to_dataset
from frossl.data.reading import Reading
from frossl.data.types import Dataset, Split
from frossl.data.wnids import WNID, fingerprint, label_table, read_ids

DEBIAN_DIR = Path("/usr/share/datasets")
"""Where Debian's packages of data put a directory each."""
TABLE = Path(__file__).with_name("datasets.toml")

Pair = tuple[Tensor, Tensor]  # images (N, C, H, W) and labels (N,)


@dataclass(frozen=True, kw_only=True)
class Record:
    """Facts about a named data set.

    ``classes`` is empty where the folder names are the classes. ``size`` is ``(H, W)``, None where it varies.
    ``mean`` and ``std`` are of images in [0, 1]. ``train`` and ``test`` are numbers of images. Images lie in a
    ``folder`` below ``data_dir``, or are held in memory if there is none. ``torchvision`` names the class that
    downloads them and its arguments; without, a person has to. ``debian`` is a package with the same files.
    ``class_list`` is what the list of its WordNet ids is called, empty if there is none.
    """

    name: str
    classes: tuple[str, ...]
    class_count: int
    size: tuple[int, int] | None = None
    channels: int = 3
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: int
    test: int
    licence: str
    homepage: str
    torchvision: dict[str, Any] = field(default_factory=dict)
    folder: str = ""
    debian: str = ""
    class_list: str = ""

    def ids(self) -> tuple[str, ...]:
        """The WordNet ids of its classes, sorted, empty if there is no list of them."""
        return read_ids(TABLE.with_name(f"{self.name}.txt")) if self.class_list else ()

    def open(self, options: Opening) -> Dataset:
        """The data set, with the numbers of its images checked against the record.

        Raises:
            UserError: images cannot be had, with what to do, or are not those of the record.
        """
        options = replace(options, channels=options.channels or self.channels)
        data = _class_folders(self, options) if self.folder else _in_memory(self, options)
        found, expected = (len(data.train), len(data.test)), (self.train, self.test)
        if found != expected:
            odd = "{:,} training and {:,} held-out images, where {} is known to have {:,} and {:,}"
            data = replace(data, notes=(*data.notes, odd.format(*found, self.name, *expected)))
        return data


def _read_table() -> Registry[Record]:
    records: Registry[Record] = Registry("data set")
    for name, facts in tomllib.loads(TABLE.read_text(encoding="utf-8")).items():
        facts["classes"] = facts["classes"].split(", ") if "classes" in facts else []
        facts = {"name": name, "class_count": len(facts["classes"]), **facts.pop("images"), **facts}
        records.add(name, from_plain(Record, facts))
    return records


DATASETS = _read_table()


def _in_memory(record: Record, options: Opening) -> Dataset:
    if options.cache is not None:
        raise UserError(
            f"{record.name} is held in memory, decoded already: there is nothing to store, leave --cache out"
        )
    installed, which = DEBIAN_DIR / record.name, record.torchvision
    if record.debian and installed.is_dir():
        pairs = [_from_idx(installed, part) for part in ("train", "t10k")]
        source = f"Debian package {record.debian} in {installed}"
    else:
        parts = [_download(record, options.data_dir, which["name"], which[part]) for part in ("train", "test")]
        pairs = [_from_torchvision(part) for part in parts]
        source = f"torchvision {which['name']} in {options.data_dir}"
    channels = options.channels or record.channels
    if channels not in (1, 3):
        raise UserError(f"{record.name}: --channels {channels}: give 1 (grey) or 3 (colour)")

    reading = Reading(channels)
    train, test = (
        Split(reading.to_tensor(x_NCHW.permute(0, 2, 3, 1).numpy()), y if options.labels else None)
        for x_NCHW, y in pairs
    )
    classes = record.classes if options.labels else ()
    return assemble(record.name, train, test, source, classes, options, statistics=(record.mean, record.std))


def _download(record: Record, root: Path, name: str, arguments: dict[str, Any]) -> Any:
    """A data set of torchvision, downloaded into ``root`` if it is not there; whatever fails is a UserError."""
    import torchvision.datasets

    try:
        return getattr(torchvision.datasets, name)(str(root), download=True, **arguments)
    except (OSError, RuntimeError, HTTPException, EOFError, ModuleNotFoundError) as error:
        package = f" On Debian or Ubuntu, sudo apt-get install {record.debian} is enough." if record.debian else ""
        raise UserError(
            f"cannot get {record.name} through torchvision into {root}: {error}. Check the network, or get the files "
            f"from {record.homepage} on another machine and put them there; a damaged file must be removed first. Or "
            f"give a folder or Parquet file of these images as DATA.{package}"
        ) from error


def _from_torchvision(data: Any) -> Pair:
    images = torch.as_tensor(data.data)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2)
    return images, torch.as_tensor(data.targets if hasattr(data, "targets") else data.labels, dtype=torch.int64)


def _from_idx(folder: Path, part: str) -> Pair:
    """A pair of gzipped IDX files (the MNIST format) as images ``(N, 1, H, W)`` and labels; UserError if damaged."""
    arrays, path = [], folder
    try:
        for kind in ("images-idx3", "labels-idx1"):
            path = folder / f"{part}-{kind}-ubyte.gz"
            raw = gzip.decompress(path.read_bytes())
            if raw[:3] != bytes([0, 0, 8]):
                raise ValueError(f"it is no IDX file of bytes, and begins with {raw[:4].hex()}")
            shape = np.frombuffer(raw, ">u4", raw[3], 4)
            arrays.append(np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape.tolist()).copy())
    except (OSError, EOFError, LookupError, ValueError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}; install it again") from error
    images, labels = arrays
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise UserError(f"{folder}: {part} has images {images.shape} and labels {labels.shape}; install it again")
    return torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()


def _class_folders(record: Record, options: Opening) -> Dataset:
    """A folder with ``train/`` and ``val/`` and in them a folder for each class, called as in ImageNet."""
    folder, which = options.data_dir / record.folder, dict(record.torchvision)
    if which and not folder.exists():
        _download(record, options.data_dir, which.pop("name"), which)
    if not folder.is_dir():
        raise UserError(
            f"{record.name} must be prepared, and {folder} does not exist. Get it from {record.homepage}, then: "
            f"frossl data prepare {record.name} SOURCE --to {folder}"
        )
    files, _ = list_images(folder)
    train, test = files.below("train/"), files.below("val/")
    classes = train.classes()
    test_names, notes = _val_names(folder, test)
    strange = [name for name in classes if not WNID.fullmatch(name)]
    if strange or len(classes) != record.class_count:
        raise UserError(
            f"{folder}/train should hold the {record.class_count} class folders of {record.name}, called like "
            f"n01440764; it holds {len(classes)}, {len(strange)} of them called otherwise {strange[:5]}. "
            "Put the right classes there, or open the folder by its path."
        )
    parts = [
        Part(split, {LABELS: [name or None for name in names]} if options.labels else {}, f"{folder}/{place}")
        for split, names, place in ((train, train.folders(), "train"), (test, test_names, "val"))
    ]
    notes.append(fingerprint(classes, record.ids(), record.class_list))
    data = to_dataset(
        Found(record.name, f"folder {folder}", parts, notes, "sub-folders"), options, (record.mean, record.std)
    )
    return replace(data, classes=record.classes or data.classes) if data.classes else data


def _val_names(folder: Path, files: Files) -> tuple[list[str], list[str]]:
    """The class of each file in ``val/``: its sub-folder, or what Tiny ImageNet's annotations say; and notes."""
    names = files.folders()
    annotations = folder / "val" / "val_annotations.txt"
    if set(names) != {"images"} or not annotations.is_file():
        return names, []
    of_file = label_table(annotations.read_text(), str(annotations))
    names = [of_file.get(Path(path).stem, "") for path in files.paths]
    if "" in names:
        raise UserError(f"{annotations} does not name the class of {files.paths[names.index('')]}; get the file again")
    return names, ["held-out labels come from val/val_annotations.txt"]
