"""What an opened data set is: two splits of uint8 images and every fact about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from frossl.core.types import Targets, kind_of


@runtime_checkable
class LazySequence(Protocol):
    """Images that are decoded when asked for: ``images[i]`` is uint8 ``(C, H, W)``, sizes may differ."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Tensor: ...
    def select(self, index: np.ndarray) -> LazySequence:
        """Only the images at ``index``."""
        ...


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    ``images`` is uint8 ``(N, C, H, W)`` in memory or a :class:`LazySequence`; ``labels`` are class numbers, int64
    ``(N,)``; or values to predict, floats ``(N,)``; or 0 and 1 for each of K labels, int64 ``(N, K)``; None when there
    are none at all. An unknown label is -1 (of K labels all of them), an unknown value NaN.
    """

    images: Tensor | LazySequence
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def in_memory(self) -> bool:
        return isinstance(self.images, Tensor)

    def select(self, index_N: Tensor) -> Split:
        """The images at ``index_N`` and their labels."""
        labels = None if self.labels is None else self.labels[index_N]
        if isinstance(self.images, Tensor):
            return Split(self.images[index_N], labels)
        return Split(self.images.select(index_N.numpy()), labels)


@dataclass(frozen=True)
class Skipped:
    """A file or row that could not be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """Two splits and what is known about them.

    ``test`` holds the held-out images. ``classes`` is empty unless labels are classes, ``tags`` are the names of K
    labels of which an image may have several. ``mean`` and ``std`` are per channel, of
    images scaled to [0, 1]. ``smallest``, ``largest`` and ``typical`` are the minimum, maximum and median of
    the heights and of the widths, each as ``(H, W)``. ``source`` says in one line where the images came from,
    ``values`` is their type there, ``range`` the values that became 0 and 255, a pair for all channels or one for each.
    ``levels`` counts the numbers from 0 to 255 that were met in a sample. ``notes`` are sentences on what was decided.
    ``drawn`` is whether the held-out images were chosen by the seed, so that another seed has others.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    smallest: tuple[int, int]
    largest: tuple[int, int]
    typical: tuple[int, int]
    source: str
    values: str = "uint8"
    range: tuple[float, ...] = ()
    levels: int | None = None
    notes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    tags: tuple[str, ...] = ()
    drawn: bool = False

    @property
    def targets(self) -> Targets | None:
        """What the labels are, None without any."""
        return kind_of(self.train.labels, self.test.labels, self.classes)
