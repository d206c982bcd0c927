"""Millions of names in two arrays, which take a fraction of the memory of a list of strings in every worker."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from frossl.core.shared import SharedArray

CHUNK = 1 << 16
CODE = ("utf-8", "surrogatepass")
"""Takes every name that a file system can have, and sorts bytes as their strings."""


class Names(Sequence[str]):
    """Strings one after the other as bytes, and where each ends: eight bytes a name beside its letters."""

    def __init__(self, names: Iterable[str]) -> None:
        letters, ends = bytearray(), array("q", [0])
        for name in names:
            letters += name.encode(*CODE)
            ends.append(len(letters))
        self.letters = np.frombuffer(letters, np.uint8).view(SharedArray)
        self.ends = np.frombuffer(ends, np.int64).view(SharedArray)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: Any, /) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        i = range(len(self))[index]
        return self.letters[self.ends[i] : self.ends[i + 1]].tobytes().decode(*CODE)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), CHUNK):
            first, *_ = ends = self.ends[start : start + CHUNK + 1].tolist()
            letters = self.letters[first : ends[-1]].tobytes()
            for begin, end in pairwise(ends):
                yield letters[begin - first : end - first].decode(*CODE)
