"""Encoded images before they are a :class:`~frossl.data.types.Dataset`, and how they are to be opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from torch import Tensor

from frossl.core.types import UserError
from frossl.data.decode import UnreadableError, decode


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to open a data set; the fields are the options of :func:`frossl.data.open.open_data`."""

    data_dir: Path = Path("data")
    labels: bool = True
    channels: int | None = None
    held_out: float = 0.1
    seed: int = 0
    memory_limit: int = 2 * 2**30
    workers: int = 0
    cache: int | None = None
    log: Callable[[str], None] = lambda message: None

    def __post_init__(self) -> None:
        if self.cache is not None and self.cache < 1:
            raise UserError(f"a cache of images with a shorter side of {self.cache} pixels: give at least 1")
        if self.channels not in (None, 1, 3):
            raise UserError(f"channels = {self.channels}: give 1 (grey), 3 (colour), or none to choose by the images")
        if not 0 < self.held_out < 1:
            raise UserError(f"held_out = {self.held_out}: give a fraction between 0 and 1, for example 0.1")


class Sources(Protocol):
    """Encoded images in order: paths or bytes, with names for messages. Indexing may raise UnreadableError.

    A stamp is another one when the encoded image may be.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> str | bytes: ...
    def name(self, index: int) -> str: ...
    def stamp(self, index: int) -> str: ...
    def take(self, index: np.ndarray) -> Self: ...


@dataclass(frozen=True, eq=False)
class Encoded:
    """One split before decoding: sources and, when there are any, int64 labels ``(N,)``."""

    sources: Sources
    labels: np.ndarray | None = None

    def take(self, index: np.ndarray) -> Encoded:
        return Encoded(self.sources.take(index), None if self.labels is None else self.labels[index])


@dataclass(frozen=True, eq=False)
class LazyImages:
    """Images decoded at each access, picklable; a file that broke since the scan is a UserError.

    Large JPEGs are decoded at a reduced size with a shorter side of at least ``least`` pixels, if that is not 0.
    """

    sources: Sources
    channels: int
    least: int = 0

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, index: np.ndarray) -> LazyImages:
        """Only the images at ``index``."""
        return replace(self, sources=self.sources.take(index))

    def __getitem__(self, index: int, /) -> Tensor:
        try:
            return decode(self.sources[index], self.channels, self.least)
        except UnreadableError as error:
            raise UserError(
                f"cannot read {self.sources.name(index)}: {error}. It was readable when the data was opened; "
                "put it back, or start again so that it is left out."
            ) from error


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images of one size that were decoded when they were looked through, each of one channel or of ``channels``."""

    pixels: list[Tensor]
    channels: int

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, index: np.ndarray) -> Decoded:
        """Only the images at ``index``."""
        return replace(self, pixels=[self.pixels[i] for i in index])

    def __getitem__(self, index: int, /) -> Tensor:
        return self.pixels[index].expand(self.channels, -1, -1)
