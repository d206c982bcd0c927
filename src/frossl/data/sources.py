"""Encoded images, wherever they lie, before they are a :class:`~frossl.data.types.Dataset`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from frossl.core.types import UserError
from frossl.data.decode import UnreadableError, decode
from frossl.data.reading import Reading


class Sources(Protocol):
    """Encoded images in order: paths or bytes, with names for messages. Indexing may raise UnreadableError.

    A stamp is another one when the encoded image may be.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> str | bytes: ...
    def name(self, index: int) -> str: ...
    def stamp(self, index: int) -> str: ...


class Encoded(NamedTuple):
    """One split before decoding: sources and, when there are any, labels as those of a split."""

    sources: Sources
    labels: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class LazyImages:
    """The images at ``index`` of ``sources``, decoded at each access; one that broke since the scan is a UserError.

    Picklable. Large JPEGs are decoded at a reduced size with a shorter side of at least ``least`` pixels, if that is
    not 0. ``max_pixels`` is as in :class:`~frossl.data.options.DataOptions`.
    """

    sources: Sources
    index: np.ndarray
    reading: Reading
    least: int = 0
    max_pixels: int | None = None

    def __len__(self) -> int:
        return len(self.index)

    def select(self, index: np.ndarray) -> LazyImages:
        """Only the images at ``index``."""
        return replace(self, index=self.index[index])

    def __getitem__(self, index: int, /) -> Tensor:
        place = int(self.index[index])
        try:
            return decode(self.sources[place], self.reading, self.least, self.max_pixels)
        except UnreadableError as error:
            raise UserError(
                f"cannot read {self.sources.name(place)}: {error}. It was readable when the data was opened; "
                "put it back, or start again so that it is left out."
            ) from error
