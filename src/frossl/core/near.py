"""Paths that may be meant where there is none."""

from __future__ import annotations

import os
from contextlib import suppress
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

LOOKED_AT = 10_000
"""Most names of a folder that are compared."""


def is_clearly_a_path(text: str) -> bool:
    """Whether ``text`` can be no name of a data set or an encoder, but only a path.

    >>> is_clearly_a_path("../photos"), is_clearly_a_path("photos")
    (True, False)
    """
    return text.startswith((".", "~")) or any(sign in text for sign in (os.sep, os.altsep) if sign)


def near_path(path: str | Path) -> Path | None:
    """The file or folder beside ``path``, which is not there, whose name is nearest; None if none is near."""
    path, names = Path(path).expanduser(), []
    with suppress(OSError), os.scandir(path.parent) as entries:
        names = [entry.name for entry in islice(entries, LOOKED_AT)]
    near = get_close_matches(path.name, names, n=1, cutoff=0.7)
    return path.with_name(near[0]) if near else None


def did_you_mean(path: str | Path) -> str:
    """A question that names :func:`near_path`, after a space; empty if there is none."""
    near = near_path(path)
    return f" Did you mean {str(near)!r}?" if near else ""
