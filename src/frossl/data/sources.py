"""Encoded images of any source, before they are a :class:`~frossl.data.types.Dataset`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from frossl.core.random import uniforms
from frossl.core.types import UserError
from frossl.data.decode import UnreadableError, decode
from frossl.data.reading import Reading
from frossl.data.threads import in_threads
from frossl.data.types import LazySequence, Skipped

ATTEMPTS, KEY = 20, 1 << 34


class Sources(Protocol):
    """Encoded images in order: paths or bytes, with names for messages. Indexing may raise UnreadableError.

    The stamp of an image changes when its file may have changed.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> str | bytes: ...
    def name(self, index: int) -> str: ...
    def stamp(self, index: int) -> str: ...


class Encoded(NamedTuple):
    """One split before decoding: sources and, when there are any, labels as those of a split, and names of groups."""

    sources: Sources
    labels: np.ndarray | None = None
    groups: np.ndarray | None = None


class Shown(NamedTuple):
    """A decoded image, its index, and the unreadable images that it replaces."""

    image: Tensor
    chosen: int
    skipped: tuple[Skipped, ...] = ()


def show(images: Tensor | LazySequence, index: int) -> Shown:
    """The image at ``index`` or, if images are unchecked and it cannot be read, the one that training shows instead."""
    return images.show(index) if isinstance(images, LazyImages) else Shown(images[index], index)


@dataclass(frozen=True, eq=False)
class LazyImages:
    """The images at ``index`` of ``sources``, decoded at each access.

    One that cannot be read is a UserError or, if images are ``unchecked``, replaced by another. Picklable. Large JPEGs
    are decoded at a reduced size with a shorter side of at least ``least`` pixels, if that is not 0. ``max_pixels`` is
    as in :class:`~frossl.data.options.DataOptions`.
    """

    sources: Sources
    index: np.ndarray
    reading: Reading
    least: int = 0
    max_pixels: int | None = None
    unchecked: bool = False

    def __len__(self) -> int:
        return len(self.index)

    def select(self, index: np.ndarray) -> LazyImages:
        """Only the images at ``index``."""
        return replace(self, index=self.index[index])

    def __getitem__(self, index: int, /) -> Tensor:
        return self.show(index).image

    def show(self, index: int) -> Shown:
        """The image at ``index``, or the first that can be read of those that hashes of its place choose."""
        skipped: list[Skipped] = []
        first = int(self.index[index])
        for attempt in range(ATTEMPTS):
            try:
                return Shown(self.decode(index), index, tuple(skipped))
            except UnreadableError as error:
                skipped.append(Skipped(self.sources.name(int(self.index[index])), str(error)))
                if not self.unchecked:
                    raise UserError(
                        f"cannot read {skipped[0].path}: {error}. It was readable when the data was opened; "
                        "put it back, or start again so that it is left out."
                    ) from error
            index = int(uniforms(1, KEY, first, attempt)[0] * len(self))
        raise UserError(
            f"cannot read {ATTEMPTS} images in a row, the first being {skipped[0].path}: {skipped[0].reason}"
        )

    def check(self, workers: int | None) -> tuple[np.ndarray, list[Skipped]]:
        """The indices of those that can be read, and the others; JPEGs are decoded at an eighth of their size."""

        def problem(i: int) -> Skipped | None:
            try:
                self.decode(i, least=1)
            except UnreadableError as error:
                return Skipped(self.sources.name(int(self.index[i])), str(error))

        problems = list(in_threads(problem, len(self), workers))
        good = np.array([found is None for found in problems], np.bool_)
        return np.flatnonzero(good), [found for found in problems if found]

    def decode(self, index: int, /, least: int | None = None) -> Tensor:
        """The image at ``index``, with another ``least`` if that is given; raises UnreadableError."""
        least = self.least if least is None else least
        image = decode(self.sources[int(self.index[index])], self.reading, least, self.max_pixels)
        if len(image) != self.reading.channels:
            raise UnreadableError(f"it has {len(image)} channels, where {self.reading.channels} were found in a sample")
        return image
