"""Every image of a data set with its name, in the order of its source, whatever was held out of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frossl.core.types import known
from frossl.data.decode import UnreadableError
from frossl.data.loader import centre_crop, iterate_loader
from frossl.data.sources import LazyImages
from frossl.data.types import Dataset

TRAIN, HELD_OUT = "train", "held-out"


@dataclass(frozen=True, eq=False)
class Whole:
    """The images of ``data``, of its own two splits or, where it brings no such splits, of one without a name.

    ``rows`` ``(N, 2)`` holds the split of ``data`` (0 train, 1 held out) and the index in it of each image.
    """

    data: Dataset
    rows: np.ndarray
    divided: bool

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int, /) -> Tensor:
        return self.decoded(i)

    def decoded(self, i: int, least: int = 0) -> Tensor:
        """Uint8 ``(C, H, W)``; a large JPEG may be read with a shorter side of ``least`` pixels, if that is not 0.

        Raises:
            UnreadableError: the image cannot be read.
        """
        images, at = self._at(i)
        return images.decode(at, least) if isinstance(images, LazyImages) else images[at]

    def _at(self, i: int) -> tuple[Any, int]:
        """The images of the split that image ``i`` lies in, and its place there."""
        which, at = self.rows[i].tolist()
        return (self.data.train, self.data.test)[which].images, at

    def names(self) -> list[str]:
        """The name of every image, as :meth:`name` has it."""
        return [*map(self.name, range(len(self)))]

    def name(self, i: int) -> str:
        """The path below the source or, of images that have none, the split and the place in it."""
        images, at = self._at(i)
        if isinstance(images, LazyImages):
            return images.sources.name(int(images.index[at]))
        return f"{(TRAIN, HELD_OUT)[self.rows[i, 0]]}:{at}"

    def splits(self) -> list[str]:
        """``train`` or ``held-out`` for each image; empty where the data bring no splits."""
        return [(TRAIN, HELD_OUT)[which] if self.divided else "" for which in self.rows[:, 0].tolist()]

    def labels(self) -> list[str | None]:
        """Each label in words: the name of a class, a value, or several names; None if unknown."""
        words = [self._words(split.labels) or [None] * len(split) for split in (self.data.train, self.data.test)]
        return [words[which][at] for which, at in self.rows.tolist()]

    def _words(self, labels: Tensor | None) -> list[str | None]:
        """All of ``labels`` in words; empty if there are none."""
        if labels is None:
            return []
        if labels.ndim == 2:
            words = ["; ".join(compress(self.data.tags, has)) for has in labels.tolist()]
        else:
            words = [self.data.classes[int(y)] if self.data.classes else f"{y:g}" for y in labels.tolist()]
        return [word if is_known else None for word, is_known in zip(words, known(labels).tolist(), strict=True)]

    def select(self, index: np.ndarray) -> Whole:
        """Only the images at ``index``."""
        return replace(self, rows=self.rows[index])

    def digest(self, names: Sequence[str]) -> str:
        """SHA-256 of ``names``, those of all images, and of what changes when an image does: size and times of its
        file, or its pixels.
        """
        hashed = sha256()
        for i, name in enumerate(names):
            images, at = self._at(i)
            if isinstance(images, LazyImages):
                hashed.update(f"{name}\0{images.sources.stamp(int(images.index[at]))}\0".encode(errors="replace"))
            else:
                hashed.update(images[at].numpy().tobytes())
        return hashed.hexdigest()


def whole(data: Dataset) -> Whole:
    """All images of ``data``: in the order of their source, if its held-out images were not its own choice."""
    train, test = data.train.images, data.test.images
    rows = np.concatenate([np.stack([np.full(len(x), k), np.arange(len(x))], 1) for k, x in enumerate((train, test))])
    if isinstance(train, LazyImages) and isinstance(test, LazyImages) and train.sources is test.sources:
        places = np.concatenate([train.index, test.index])
        return Whole(data, rows[places.argsort(kind="stable")], divided=False)
    return Whole(data, rows, divided=True)


@dataclass(frozen=True)
class Squares:
    """The centre squares of images at ``size`` pixels, or why there is none, for workers."""

    images: Whole
    size: int
    interpolation: str = "bicubic"
    least: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, str]:
        try:
            return centre_crop(self.images.decoded(i, self.least), self.size, self.interpolation), ""
        except UnreadableError as error:
            shape = (self.images.data.channels, self.size, self.size)
            return torch.zeros(shape, dtype=torch.uint8), str(error)


def square_batches(squares: Squares, batch: int, workers: int) -> Iterator[tuple[Tensor, list[str]]]:
    """Uint8 pictures ``(B, C, size, size)`` in order, and for each why it could not be read, empty if it could."""
    how = {"batch_size": batch, "collate_fn": _collate}
    yield from iterate_loader(squares, workers if len(squares) > batch else 0, **how)


def _collate(pictures: list[tuple[Tensor, str]]) -> tuple[Tensor, list[str]]:
    return torch.stack([x for x, _ in pictures]), [reason for _, reason in pictures]
