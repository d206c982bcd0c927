"""Decode once: a memory-mapped store of uint8 pixels beside a list of where each image lies in it.

A store is a directory. ``manifest.json`` says what is stored: the names and stamps of all sources, the size, the
number of channels. ``pixels.bin`` holds the images one after the other as height x width x channels. ``index.bin`` has
a row of four int64 for each: offset, height, width and CRC-32 of its bytes. Rows are added when their pixels are on
the disk, so that a store that was interrupted goes on where it stopped. One process at a time fills it, those that come
meanwhile wait; a store that is whole is only read.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.nn import functional as F

from frossl.core.files import write_text
from frossl.core.types import UserError
from frossl.data.types import LazySequence

FORMAT = 1
FLUSHED = 256
"""Images between two flushes to the disk."""
SECONDS_BETWEEN_LOGS = 10
Log = Callable[[str], None]
InThreads = Callable[[Callable[[int], Any], int], Iterator[Any]]
"""Results of a function of 0 .. count - 1, in order."""


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

    def take(self, index: np.ndarray) -> Stored:
        """Only the images at ``index``."""
        return replace(self, rows=self.rows[index])

    def __getitem__(self, index: int, /) -> Tensor:
        offset, height, width, _ = self.rows[index]
        pixels = np.array(self._pixels[offset : offset + height * width * self.channels])
        return torch.from_numpy(pixels.reshape(height, width, self.channels)).permute(2, 0, 1)


def shrunk(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width with a shorter side of ``size``; an image that is no larger stays as it is."""
    share = min(1.0, size / min(height, width))
    return round(height * share), round(width * share)


def shrink(image_CHW: Tensor, size: int) -> Tensor:
    """Resized to :func:`shrunk`, bicubic and antialiased."""
    height, width = image_CHW.shape[1:]
    shape = shrunk(height, width, size)
    if shape == (height, width):
        return image_CHW
    return F.interpolate(image_CHW[None], shape, mode="bicubic", antialias=True, align_corners=False)[0]


def describe(name: str, size: int, channels: int, sources: list[str]) -> dict[str, Any]:
    """The manifest of a store: whatever decides which pixels are in it."""
    return {"format": FORMAT, "name": name, "size": size, "channels": channels, "sources": sources}


def directory_for(root: Path, manifest: dict[str, Any]) -> Path:
    """The directory of a store below ``root``: another one for anything that would make other pixels."""
    digest = sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return root / f"{manifest['name']}-{manifest['size']}px-{digest[:12]}"


@contextmanager
def alone(path: Path, log: Log) -> Iterator[None]:
    """Lets in one process at a time, whoever holds the lock at ``path``; a process that ends lets go of it.

    Raises:
        UserError: the place cannot be written to, has become full, or has no locks (as some releases of filelock say).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log(f"another process is filling {path.parent}; waiting for it")
            lock.acquire()
        except NotImplementedError as error:
            raise UserError(
                f"{path.parent} lies on a file system without locks, which keep two processes from filling one store; "
                "choose another place with --data-dir"
            ) from error
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        raise UserError(
            f"cannot write {path.parent}: {error.strerror or error}. What is whole there stays and is not made again; "
            "make room, or choose another place with --data-dir"
        ) from error


def store(images: LazySequence, directory: Path, manifest: dict[str, Any], in_threads: InThreads, log: Log) -> Stored:
    """``images`` from the store in ``directory``, which is filled first as far as it is not; then it is verified.

    Raises:
        UserError: the disk is full or cannot be written to, an image cannot be read, or the store is damaged.
    """
    text = json.dumps(manifest, indent=1) + "\n"
    channels = manifest["channels"]
    rows = _whole_rows(directory, text, len(images), channels)
    if len(rows) < len(images):
        with alone(directory / "lock", log):
            rows = _whole_rows(directory, text, len(images), channels)
            if len(rows) < len(images):
                log(f"{directory}: {len(rows):,} of {len(images):,} images are stored; decoding the others")
                _cut(directory, rows, channels)
                write_text(directory / "manifest.json", text)
                _fill(images, directory, len(rows), manifest["size"], in_threads, log)
                rows = _whole_rows(directory, text, len(images), channels)
    stored = Stored(directory, rows, channels)
    _verify(stored, in_threads)
    return stored


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


def _cut(directory: Path, rows: np.ndarray, channels: int) -> None:
    """Take away whatever lies after these rows and their pixels."""
    for name, size in (("index.bin", rows.nbytes), ("pixels.bin", int((rows[:, 1] * rows[:, 2]).sum()) * channels)):
        with open(directory / name, "ab") as file:
            file.truncate(size)


def _fill(images: LazySequence, directory: Path, done: int, size: int, in_threads: InThreads, log: Log) -> None:
    def pixels_of(i: int) -> np.ndarray:
        return np.ascontiguousarray(shrink(images[done + i], size).permute(1, 2, 0).numpy())

    offset, waiting = (directory / "pixels.bin").stat().st_size, []
    due = monotonic() + SECONDS_BETWEEN_LOGS
    with open(directory / "pixels.bin", "ab") as pixels, open(directory / "index.bin", "ab") as index:

        def flush() -> None:
            for file, content in ((pixels, b""), (index, np.array(waiting, np.int64).tobytes())):
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            waiting.clear()

        for i, image in enumerate(in_threads(pixels_of, len(images) - done), done + 1):
            content = image.tobytes()
            pixels.write(content)
            waiting.append((offset, *image.shape[:2], zlib.crc32(content)))
            offset += len(content)
            if len(waiting) == FLUSHED or i == len(images):
                flush()
            if monotonic() > due:
                log(f"stored {i:,} of {len(images):,} images")
                due = monotonic() + SECONDS_BETWEEN_LOGS


def _verify(stored: Stored, in_threads: InThreads) -> None:
    pixels = np.memmap(stored.directory / "pixels.bin", np.uint8, mode="r")

    def whole(i: int) -> bool:
        offset, height, width, checksum = (int(n) for n in stored.rows[i])
        return zlib.crc32(pixels[offset : offset + height * width * stored.channels].data) == checksum

    damaged = [i for i, good in enumerate(in_threads(whole, len(stored))) if not good]
    if damaged:
        raise UserError(
            f"{stored.directory} is damaged: {len(damaged):,} of {len(stored):,} images are not what was stored, the "
            f"first being number {damaged[0]}. Remove that directory; it will be made again"
        )
