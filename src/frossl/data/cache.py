"""Decode once: a memory-mapped store of uint8 pixels beside a list of where each image lies in it.

A store is a directory. ``manifest.json`` says what is stored: a checksum of the names and stamps of all sources, the
size, the number of channels. ``pixels.bin`` holds the images one after the other as height x width x channels.
``index.bin`` has a row of four int64 for each: offset, height, width and CRC-32 of its bytes. Rows are added when their
pixels are on the disk, so that a store that was interrupted goes on where it stopped. One process at a time fills it,
those that come meanwhile wait; a store that is whole is only read.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.nn import functional as F

from frossl.core.files import write_text
from frossl.core.shared import SharedArray
from frossl.core.types import UserError
from frossl.data.options import Log, Opening
from frossl.data.sources import LazyImages, Sources
from frossl.data.threads import counted, in_threads

FORMAT = 3
FLUSHED = 256
"""Images between two flushes to the disk."""
CACHE = "cache"
"""Where stores lie below the directory of the data."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Images of several sizes in a store, read from the mapped file; picklable, as only the path is sent."""

    directory: Path
    rows: np.ndarray
    channels: int

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _pixels(self) -> np.ndarray:
        return np.memmap(self.directory / "pixels.bin", np.uint8, mode="r")

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "rows": self.rows, "channels": self.channels}

    def select(self, index: np.ndarray) -> Stored:
        """Only the images at ``index``."""
        return replace(self, rows=self.rows[index])

    def mapped(self, index: int) -> np.ndarray:
        """An image as it lies in the mapped file: height x width x channels."""
        offset, height, width, _ = self.rows[index].tolist()
        return self._pixels[offset : offset + height * width * self.channels].reshape(height, width, self.channels)

    def __getitem__(self, index: int, /) -> Tensor:
        return torch.from_numpy(np.array(self.mapped(index))).permute(2, 0, 1)


def shrink(image_CHW: Tensor, size: int) -> Tensor:
    """Resized to a shorter side of ``size``, bicubic and antialiased; an image that is no larger stays as it is."""
    height, width = image_CHW.shape[1:]
    share = size / min(height, width)
    if share >= 1:
        return image_CHW
    shape = (round(height * share), round(width * share))
    return F.interpolate(image_CHW[None], shape, mode="bicubic", antialias=True, align_corners=False)[0]


def checksum(sources: Sources, places: Iterable[int]) -> str:
    """SHA-256 of names and stamps: what makes other pixels makes another one."""
    digest = sha256()
    for i in places:
        digest.update(json.dumps([sources.name(int(i)), sources.stamp(int(i))]).encode())
    return digest.hexdigest()


@contextmanager
def alone(path: Path, log: Log) -> Iterator[None]:
    """Lets in one process at a time, whoever holds the lock at ``path``; a process that ends lets go of it.

    Raises:
        UserError: the place cannot be written to, has become full, or has no locks (as some releases of filelock say).
    """
    elsewhere = "choose another place with --data-dir"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log(f"another process is filling {path.parent}; waiting for it")
            lock.acquire()
        except NotImplementedError as error:
            said = f"{path.parent} lies on a file system without locks, which keep two processes from filling one store"
            raise UserError(f"{said}; {elsewhere}") from error
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        said = f"cannot write {path.parent}: {error.strerror or error}. What is whole there stays and is not made again"
        raise UserError(f"{said}; make room, or {elsewhere}") from error


def store(name: str, images: LazyImages, size: int, options: Opening) -> Stored:
    """``images``, shrunk to ``size``, from their store, which is filled first as far as it is not; then it is verified.

    Its directory is another one for anything that would make other pixels.

    Raises:
        UserError: the disk is full or cannot be written to, an image cannot be read, or the store is damaged.
    """
    sources = {"images": len(images), "sources": checksum(images.sources, images.index)}
    manifest = {"format": FORMAT, "name": name, "size": size, "reading": asdict(images.reading), **sources}
    digest = sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    directory, text = options.data_dir / CACHE / f"{name}-{size}px-{digest[:12]}", json.dumps(manifest, indent=1) + "\n"
    stored = partial(_whole_rows, directory, text, len(images), images.reading.channels)
    if len(stored()) < len(images):
        with alone(directory / "lock", options.log):
            rows = stored()
            if len(rows) < len(images):
                options.log(f"{directory}: {len(rows):,} of {len(images):,} images are stored; decoding the others")
                _fill(images, directory, rows, text, size, options)
    whole = Stored(directory, stored().view(SharedArray), images.reading.channels)
    _verify(whole, options)
    return whole


def _whole_rows(directory: Path, text: str, count: int, channels: int) -> np.ndarray:
    """The rows, at most ``count``, of the images that are stored whole, up to the first that is not."""
    manifest, index, pixels = (directory / name for name in ("manifest.json", "index.bin", "pixels.bin"))
    there = manifest.exists() and index.exists() and pixels.exists()
    if not there or manifest.read_text(encoding="utf-8", errors="replace") != text:
        return np.empty((0, 4), np.int64)
    rows = np.fromfile(index, np.int64)
    rows = rows[: min(count, len(rows) // 4) * 4].reshape(-1, 4)
    lengths = rows[:, 1] * rows[:, 2] * channels
    ends = lengths.cumsum()
    good = (rows[:, 1:3] > 0).all(1) & (rows[:, 0] == ends - lengths) & (ends <= pixels.stat().st_size)
    return rows if good.all() else rows[: good.argmin()]


def _fill(images: LazyImages, directory: Path, rows: np.ndarray, text: str, size: int, options: Opening) -> None:
    done, total, waiting = len(rows), len(images), []

    def pixels_of(i: int) -> np.ndarray:
        return np.ascontiguousarray(shrink(images[done + i], size).permute(1, 2, 0).numpy())

    offset = int((rows[:, 1] * rows[:, 2]).sum()) * images.reading.channels
    with open(directory / "pixels.bin", "ab") as pixels, open(directory / "index.bin", "ab") as index:
        pixels.truncate(offset)
        index.truncate(rows.nbytes)
        write_text(directory / "manifest.json", text)  # after whatever lay there for another one is gone

        def flush() -> None:
            for file, content in ((pixels, b""), (index, np.array(waiting, np.int64).tobytes())):
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            waiting.clear()

        results = in_threads(pixels_of, total - done, options.workers)
        for image in counted(results, "stored", done + 1, total, options.log):
            pixels.write(image.data)
            waiting.append((offset, *image.shape[:2], zlib.crc32(image.data)))
            offset += image.nbytes
            if len(waiting) == FLUSHED:
                flush()
        flush()


def _verify(stored: Stored, options: Opening) -> None:
    def whole(i: int) -> bool:
        return zlib.crc32(stored.mapped(i).data) == stored.rows[i, 3]

    damaged = [i for i, good in enumerate(in_threads(whole, len(stored), options.workers)) if not good]
    if damaged:
        raise UserError(
            f"{stored.directory} is damaged: {len(damaged):,} of {len(stored):,} images are not what was stored, the "
            f"first being number {damaged[0]}. Remove that directory; it will be made again"
        )
