"""Arrays that worker processes share with their parent, also if they are spawned."""

from __future__ import annotations

import os
import tempfile
import weakref
from contextlib import suppress
from multiprocessing.context import get_spawning_popen
from typing import Any

import numpy as np

from frossl.core.types import UserError

LARGE = 2**20
"""Bytes above which an array is mapped from a file instead of pickled."""


class SharedArray(np.ndarray):
    """An array that spawned processes map from a temporary file: ``array.view(SharedArray)``.

    Forked processes share its memory, and other pickles hold its content. The file is written when the first process is
    spawned, and removed with the array, which must not change in between.
    """

    _path: str | None = None

    def __reduce__(self) -> Any:
        if self.nbytes < LARGE or get_spawning_popen() is None:
            return super().__reduce__()
        self._path = self._path or self._written()
        return _mapped, (self._path,)

    def _written(self) -> str:
        try:
            handle, path = tempfile.mkstemp(suffix=".npy", prefix="frossl-")
            weakref.finalize(self, _remove, path, os.getpid())
            with open(handle, "wb") as file:
                np.save(file, self)
        except OSError as error:
            raise UserError(
                f"cannot write {self.nbytes / 2**20:,.0f} MiB for worker processes to {tempfile.gettempdir()}: "
                f"{error.strerror or error}. Make room, or choose another place by the variable TMPDIR"
            ) from error
        return path


def _mapped(path: str) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:  # not a forked child
        with suppress(OSError):
            os.unlink(path)
