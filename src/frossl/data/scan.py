"""One look through encoded images: which can be read, what they are, and the pixels of small ones."""

from __future__ import annotations

import json
from contextlib import nullcontext
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from frossl.core.files import write_text
from frossl.data.cache import CACHE, FORMAT, alone, listed
from frossl.data.decode import Probe, UnreadableError, probe
from frossl.data.formats import pixel_limit
from frossl.data.options import Opening
from frossl.data.sources import Sources
from frossl.data.threads import counted, in_threads
from frossl.data.types import Skipped


class Scan(NamedTuple):
    """Which sources are readable, by their places, what they are, and the others.

    ``pixels`` has the readable ones decoded where all are of one size and take little memory, else none.
    """

    kept: np.ndarray
    probes: list[Probe]
    skipped: list[Skipped]
    pixels: list[Tensor]


def look_through(sources: Sources, options: Opening) -> Scan:
    """Reads every image to its end, with a cache but once; those that could not be read are tried again."""
    if options.cache is None:
        return _scan(sources, options, {})
    path = (
        options.data_dir
        / CACHE
        / f"images-{_digest(json.dumps([FORMAT, *listed(sources, range(len(sources)))]))[:16]}.json"
    )
    known = _remembered(path)
    with nullcontext() if known else alone(path.with_suffix(".lock"), options.log):
        known = known or _remembered(path)
        scan = _scan(sources, options, known)
        if len(scan.kept) > len(known):
            found = zip(scan.kept.tolist(), scan.probes, strict=True)
            text = json.dumps([(place, *probe) for place, probe in found])
            write_text(path, f"{_digest(text)}\n{text}")
    return scan


def _remembered(path: Path) -> dict[int, Probe]:
    """The readable ones of these sources, by place; none if they were not looked through, or the file is damaged."""
    try:
        digest, _, text = path.read_text(encoding="utf-8", errors="replace").partition("\n")
    except OSError:
        return {}
    if digest != _digest(text):
        return {}
    return {place: Probe(tuple(size), *rest) for place, size, *rest in json.loads(text)}


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _scan(sources: Sources, options: Opening, known: dict[int, Probe]) -> Scan:
    total, limit = len(sources), pixel_limit(options.max_pixels)
    known = {i: x for i, x in known.items() if prod(x.size) <= limit}
    # Pixels an image: kept and then laid side by side in three channels, all take the limit.
    room = 0 if options.cache or options.range else options.memory_limit // max(1, 2 * 3 * total)

    def result(i: int) -> tuple[Probe | Skipped, Tensor | None]:
        try:
            return (known[i], None) if i in known else probe(sources[i], room, options.channels, options.max_pixels)
        except UnreadableError as error:
            return Skipped(sources.name(i), str(error)), None

    kept, probes, skipped, pixels = [], [], [], []
    results = in_threads(result, total, options.workers)
    for i, (found, x) in enumerate(counted(results, "checked", 1, total, options.log)):
        if isinstance(found, Skipped):
            skipped.append(found)
            continue
        kept.append(i)
        probes.append(found)
        if x is None or found.size != probes[0].size:
            room = 0
            pixels.clear()
        elif room:
            pixels.append(x)
    return Scan(np.array(kept, np.int64), probes, skipped, pixels)
