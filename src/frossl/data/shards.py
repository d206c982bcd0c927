"""Shards of WebDataset as a source: images in tar files, read by their offset, with labels in files beside them."""

from __future__ import annotations

import json
import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frossl.core.files import write_text
from frossl.core.types import UserError
from frossl.data.cache import CACHE
from frossl.data.decode import UnreadableError
from frossl.data.formats import EXTENSIONS
from frossl.data.options import Opening
from frossl.data.parts import Found, Part
from frossl.data.splits import split_files
from frossl.data.tables import Columns, by_role, check_column, choose_label

BLOCK = 512
TEXTS = ("cls", "json", "txt")
MASKED = ("mask", "seg", "label", "labels", "annotation")


class Member(NamedTuple):
    """A file in a shard: the number of the shard, where its bytes are, and its name."""

    shard: int
    offset: int
    size: int
    name: str


@dataclass(frozen=True, eq=False)
class Shards:
    """Images in tar ``files``: of each the number of its file, offset and length ``(N, 3)``, and its name."""

    files: tuple[str, ...]
    rows: np.ndarray
    names: list[str]
    stamps: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> bytes:
        which, offset, size = self.rows[index].tolist()
        try:
            with open(self.files[which], "rb", buffering=0) as file:
                content = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise UnreadableError(f"cannot read {self.files[which]}: {error.strerror}") from error
        if len(content) < size:
            raise UnreadableError(f"{self.files[which]} has become shorter")
        return content

    def name(self, index: int) -> str:
        return f"{os.path.basename(self.files[self.rows[index, 0]])}/{self.names[index]}"

    def stamp(self, index: int) -> str:
        which, offset, size = self.rows[index].tolist()
        return f"{self.stamps[which]}-{offset}-{size}"


def find_in_shards(path: Path, files: Sequence[Path], options: Opening) -> Found:
    """The images of tar files; names of files or of their folders give the splits, as with Parquet.

    Files of one name up to its first dot are one sample: its image, and ``.cls``, ``.json`` or ``.txt`` with labels.
    Without these, folders in the shards are classes.

    Raises:
        UserError: a file is no tar archive, or there is no image.
    """
    splits, notes = split_files(path, files)
    parts, columns = [], []
    for place, group in splits:
        sources, samples = _images(place, group, options, notes)
        parts.append(Part(sources, place=place))
        columns.append(_columns(group, samples, sources.names) if options.labels or options.group else {})
    label, doubts = choose_label(columns[0], options, "the shards")
    if options.labels:
        check_column("--label-column", options.label_column, columns[0], "the shards")
    parts = [part._replace(columns=by_role(found, label, options)) for part, found in zip(parts, columns, strict=True)]
    origin = f"{label!r} of the shards" if label else "shards have none"
    return Found(path.resolve().stem, f"tar shards {path}", parts, notes + doubts, origin)


def _images(
    place: str, files: Sequence[Path], options: Opening, notes: list[str]
) -> tuple[Shards, list[dict[str, Member]]]:
    """The images of some shards, and for each the files of its sample by their extension after the first dot."""
    samples: dict[tuple[int, str], dict[str, Member]] = {}
    for member in index(files, options, notes):
        folder, _, last = member.name.rpartition("/")
        stem, _, kind = last.partition(".")
        samples.setdefault((member.shard, f"{folder}/{stem}"), {})[kind.lower()] = member
    images, kept, other = [], [], Counter()
    for sample in samples.values():
        kinds = sorted((kind for kind in sample if f".{kind.rpartition('.')[2]}" in EXTENSIONS), key=_masked)
        if kinds:
            images.append(sample[kinds[0]])
            kept.append(sample)
        other.update(f".{kind}" for kind in sample if kind not in (*kinds[:1], *TEXTS))
    if not images:
        raise UserError(f"{files[0]} and the other shards of {place} hold no image of {' '.join(EXTENSIONS)}")
    if other:
        listed = ", ".join(f"{count:,} {kind}" for kind, count in other.most_common(10))
        notes.append(f"files of shards that are not used: {listed}")
    rows, names = np.array([one[:3] for one in images], np.int64), [one.name for one in images]
    return Shards(tuple(map(str, files)), rows, names, tuple(f"{x[1]}-{x[2]}" for x in map(_state, files))), kept


def _masked(kind: str) -> tuple[bool, int, str]:
    """Of the images of a sample masks come last, and those of a further name after that of none."""
    return any(part in MASKED for part in kind.split(".")), kind.count("."), kind


def _columns(files: Sequence[Path], samples: list[dict[str, Member]], images: list[str]) -> Columns:
    """Columns from the files of samples: text of .cls and .txt, fields of .json; else the folder of each image."""
    columns: Columns = {}
    beside = [(i, kind, sample[kind]) for i, sample in enumerate(samples) for kind in TEXTS if kind in sample]
    for shard, members in groupby(beside, key=lambda one: one[2].shard):
        with open(files[shard], "rb") as file:
            for i, kind, member in members:
                file.seek(member.offset)
                text = file.read(member.size).decode(errors="replace").strip()
                for name, value in _fields(kind, text).items():
                    columns.setdefault(name, [None] * len(samples))[i] = value
    folders = [name.rpartition("/")[0] for name in images]
    return columns or ({"folder": folders} if all(folders) else {})


def _fields(kind: str, text: str) -> dict[str, Any]:
    if kind != "json":
        return {kind: text}
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {"json": found}


def index(files: Sequence[Path], options: Opening, notes: list[str]) -> list[Member]:
    """All files in all shards, from a list below ``data_dir`` if these were looked through before.

    Raises:
        UserError: a file is no tar archive.
    """
    digest = sha256(json.dumps([*map(_state, files)]).encode()).hexdigest()
    path = options.data_dir / CACHE / f"shards-{digest[:16]}.json"
    try:
        members, said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        members, said = [], []
        for number, file in enumerate(files):
            found, damage = _members(file)
            members += [(number, *one) for one in found]
            said += [damage] * bool(damage)
            options.log(f"listed {number + 1:,} of {len(files):,} shards")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps([members, said]))
        except (OSError, UserError) as error:
            options.log(f"the list of what is in the shards is not kept, and made anew each time: {error}")
    notes += said
    return [Member(*one) for one in members]


def _state(file: Path) -> tuple[str, int, int]:
    """The path of a file, its length and when it was written."""
    status = file.stat()
    return str(file.resolve()), status.st_size, status.st_mtime_ns


def _members(file: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Offset, length and name of each file that is whole, and what is wrong with the archive, if anything."""
    length, found, damage = file.stat().st_size, [], ""
    try:
        with tarfile.open(file, "r:") as tar:
            try:
                for member in tar:
                    found.append(member)
            except (tarfile.TarError, OSError, ValueError) as error:
                damage = str(error)
            assert tar.fileobj is not None
            tar.fileobj.seek(tar.offset)
            end = tar.fileobj.read(BLOCK)
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{file} is no tar archive, or is compressed or damaged: {error}. Get it again") from None
    if end != bytes(BLOCK):  # where tarfile meets a damaged header, it takes it for the end
        damage = damage or "it does not end as an archive does"
    whole = [one for one in found if one.isreg() and one.offset_data + one.size <= length]
    said = f"{file.name} is damaged or cut short after {len(whole):,} files: {damage}" if damage else ""
    return [(one.offset_data, one.size, one.name.removeprefix("./")) for one in whole], said
