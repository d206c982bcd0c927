"""One pass over encoded images: which can be read, their properties, and the pixels of small ones."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from math import nan
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from frossl.core.files import write_atomically
from frossl.data.cache import CACHE, FORMAT, alone, checksum
from frossl.data.decode import Probe, UnreadableError, probe
from frossl.data.formats import pixel_limit
from frossl.data.options import Opening
from frossl.data.sources import Sources
from frossl.data.threads import counted, in_threads
from frossl.data.types import Skipped

PROBE = np.dtype(
    [
        *(("place", np.int64), ("size", np.int32, 2), ("dtype", "S10"), ("samples", np.int32), ("opaque", np.float64)),
        *(("pages", np.int32), ("stack", np.bool_), ("moving", np.bool_)),
    ]
)
"""A place among sources, and the fields of :class:`~frossl.data.decode.Probe`; NaN is an ``opaque`` of None."""


class Scan(NamedTuple):
    """Which sources are used, by their places, what is known of them, and the others.

    ``probes`` is of type :data:`PROBE`, of all that are used or, where only a sample was read, of that.
    ``pixels`` has the readable ones decoded where all are of one size and take little memory, else none.
    """

    kept: np.ndarray
    probes: np.ndarray
    skipped: list[Skipped]
    pixels: list[Tensor]

    @property
    def whole(self) -> bool:
        """Whether all that are used were read."""
        return len(self.probes) == len(self.kept)


Noted = list[tuple[tuple[int, str, str, int], Scan]]
_noted: list[Noted] = []
_known: Noted = []


@contextmanager
def noted(known: Noted | None = None) -> Iterator[Noted]:
    """Collects the scans that are made meanwhile, without pixels; scans that are ``known`` are used and not made.

    Splits may have as many images of the same names: each known scan is used once, in order.
    """
    scans: Noted = []
    _noted.append(scans)
    _known[:] = known or []
    try:
        yield scans
    finally:
        _noted.pop()
        _known.clear()


def look_through(sources: Sources, options: Opening, places: np.ndarray) -> Scan:
    """Reads the images at ``places`` to their end; with a cache but once, and what could not be read is tried again.

    What is not read is used.
    """
    count = len(sources)
    what = (count, sources.name(0), sources.name(count - 1), len(places)) if count else (0, "", "", 0)
    place = next((i for i, (known, _) in enumerate(_known) if known == what), None)
    scan = _look_through(sources, options, places) if place is None else _known.pop(place)[1]
    for scans in _noted:
        scans.append((what, scan._replace(pixels=[])))
    return scan


def _look_through(sources: Sources, options: Opening, places: np.ndarray) -> Scan:
    if options.cache is None:
        return _scan(sources, options, places, np.empty(0, PROBE))
    digest = checksum(sources, range(len(sources)))
    path = options.data_dir / CACHE / f"images-{_digest(json.dumps([FORMAT, options.pages, digest]).encode())[:16]}.bin"
    with nullcontext() if len(_remembered(path)) else alone(path.with_suffix(".lock"), options.log):
        known = _remembered(path)
        scan = _scan(sources, options, places, known)
        if len(scan.probes) > len(known):
            content = io.BytesIO()
            np.save(content, scan.probes)
            whole = _digest(content.getvalue()).encode() + content.getvalue()
            write_atomically(path, lambda temporary: temporary.write_bytes(whole))
    return scan


def _remembered(path: Path) -> np.ndarray:
    """The readable ones of these sources; none if they were not looked through, or the file is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    if content[:64] != _digest(content[64:]).encode():
        return np.empty(0, PROBE)
    return np.load(io.BytesIO(content[64:]))


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def _scan(sources: Sources, options: Opening, places: np.ndarray, known: np.ndarray) -> Scan:
    total, limit = len(places), pixel_limit(options.max_pixels)
    known = known[known["size"].prod(1, dtype=np.int64) <= limit]
    row = np.full(len(sources), -1)
    row[known["place"]] = np.arange(len(known))
    # Pixels an image: kept and then laid side by side in three channels, all take the limit.
    unwanted = options.cache or options.range or total < len(sources)
    room = 0 if unwanted else options.memory_limit // max(1, 2 * 3 * total)

    def result(i: int) -> tuple[Probe | np.ndarray | Skipped, Tensor | None]:
        place = int(places[i])
        if row[place] >= 0:
            return known[row[place]], None
        try:
            return probe(sources[place], room, options.channels, options.max_pixels, options.pages != "first")
        except UnreadableError as error:
            return Skipped(sources.name(place), str(error)), None

    probes, readable = np.zeros(total, PROBE), np.ones(len(sources), np.bool_)
    count, skipped, pixels = 0, [], []
    results = in_threads(result, total, options.workers)
    for place, (found, x) in zip(places, counted(results, "checked", 1, total, options.log), strict=True):
        if isinstance(found, Skipped):
            skipped.append(found)
            readable[place] = False
            continue
        probes[count] = _row(place, found) if isinstance(found, Probe) else found
        count += 1
        if x is None or tuple(x.shape[1:]) != tuple(probes["size"][0]):
            room = 0
            pixels.clear()
        elif room:
            pixels.append(x)
    return Scan(np.flatnonzero(readable), probes[:count], skipped, pixels)


def _row(place: int, found: Probe) -> tuple:
    return place, *found._replace(opaque=nan if found.opaque is None else found.opaque)
