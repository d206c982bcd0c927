"""Decode once: a memory-mapped store of uint8 pixels beside a list of where each image lies in it.

A store is a directory of three files. ``manifest.json`` says what was stored: the names and stamps of all sources, the
size, the number of channels. ``pixels.bin`` holds the images one after the other as height x width x channels.
``index.bin`` has a row of four int64 for each: offset, height, width and CRC-32 of its bytes. Rows are added when their
pixels are on the disk, so that a store that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from frossl.core.files import write_text
from frossl.core.types import UserError
from frossl.data.types import LazySequence

ROW = np.dtype(np.int64).itemsize * 4
FLUSHED = 256
"""Images between two flushes to the disk."""
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


def directory_for(root: Path, manifest: dict[str, Any]) -> Path:
    """The directory of a store below ``root``: another one for anything that would make other pixels."""
    digest = sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return root / f"{manifest['name']}-{manifest['size']}px-{digest[:12]}"


def store(
    images: LazySequence, directory: Path, manifest: dict[str, Any], in_threads: InThreads, log: Callable[[str], None]
) -> Tensor | Stored:
    """``images`` from the store in ``directory``, which is filled first as far as it is not; then it is verified.

    Images of one size come as one memory-mapped tensor ``(N, C, H, W)``.

    Raises:
        UserError: the disk is full or cannot be written to, an image cannot be read, or the store is damaged.
    """
    if not (directory / "manifest.json").exists():
        directory.mkdir(parents=True, exist_ok=True)
        write_text(directory / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    done = _whole_rows(directory, manifest["channels"])
    if done < len(images):
        log(f"{directory}: {done:,} of {len(images):,} images are stored; decoding the others")
        try:
            _fill(images, directory, done, manifest["size"], in_threads, log)
        except OSError as error:
            raise UserError(
                f"cannot write {directory}: {error.strerror or error}. What is there stays and is not made again"
            ) from error
    rows = np.fromfile(directory / "index.bin", np.int64).reshape(-1, 4)
    stored = Stored(directory, rows, manifest["channels"])
    _verify(stored, in_threads)
    if len(np.unique(rows[:, 1:3], axis=0)) > 1:
        return stored
    shape = (len(rows), int(rows[0, 1]), int(rows[0, 2]), stored.channels)
    pixels = torch.from_file(str(directory / "pixels.bin"), shared=False, size=int(np.prod(shape)), dtype=torch.uint8)
    return pixels.view(shape).permute(0, 3, 1, 2)


def _whole_rows(directory: Path, channels: int) -> int:
    """The number of images that are stored whole; what lies after them is cut off."""
    index, pixels = directory / "index.bin", directory / "pixels.bin"
    for path in (index, pixels):
        if not path.exists():
            path.touch()
    rows = np.fromfile(index, np.int64)
    rows = rows[: len(rows) // 4 * 4].reshape(-1, 4)
    ends = rows[:, 0] + rows[:, 1] * rows[:, 2] * channels
    whole = int((ends <= pixels.stat().st_size).sum())
    for path, size in ((index, whole * ROW), (pixels, int(ends[whole - 1]) if whole else 0)):
        if path.stat().st_size != size:
            os.truncate(path, size)
    return whole


def _fill(
    images: LazySequence, directory: Path, done: int, size: int, in_threads: InThreads, log: Callable[[str], None]
) -> None:
    def pixels_of(i: int) -> np.ndarray:
        return np.ascontiguousarray(shrink(images[done + i], size).permute(1, 2, 0).numpy())

    offset, waiting = (directory / "pixels.bin").stat().st_size, []
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
            if i % 10_000 == 0:
                log(f"stored {i:,} of {len(images):,} images")


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
