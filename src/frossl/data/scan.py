"""One look through encoded images: which can be read, what they are, and the pixels of small ones."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from itertools import islice
from pathlib import Path
from time import monotonic, perf_counter
from typing import NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from frossl.core.files import write_text
from frossl.data.cache import SECONDS_BETWEEN_LOGS, alone
from frossl.data.decode import Probe, UnreadableError, probe
from frossl.data.sources import Options, Sources
from frossl.data.types import Skipped

CHUNK, QUICK = 16, 2.5e-4
"""Images that a thread takes at a time; seconds an image below which a second thread makes it slower."""
CACHE = "cache"
"""Where stores of decoded images lie below the directory of the data."""

T = TypeVar("T")


class Scan(NamedTuple):
    """Which sources are readable, by their places, what they are, and the others.

    ``pixels`` has the readable ones decoded where all are of one size and take little memory, else none.
    """

    kept: np.ndarray
    probes: list[Probe]
    skipped: list[Skipped]
    pixels: list[Tensor]


def look_through(sources: Sources, options: Options) -> Scan:
    """Reads every image to its end, with a cache but once; those that could not be read are tried again."""
    if options.cache is None:
        return _scan(sources, options, {})
    path = options.data_dir / CACHE / f"scan-{_digest(json.dumps(listed(sources)))[:16]}.json"
    lock = path.with_suffix(".lock")
    if not (known := _remembered(path)):
        with alone(lock, options.log):
            if not (known := _remembered(path)):
                return _remember(path, _scan(sources, options, {}))
    scan = _scan(sources, options, known)
    if len(scan.kept) > len(known):
        with alone(lock, options.log):
            _remember(path, scan)
    return scan


def _remember(path: Path, scan: Scan) -> Scan:
    text = json.dumps({"kept": scan.kept.tolist(), "probes": [(*probe.size, probe.grey) for probe in scan.probes]})
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
    saved = json.loads(text)
    probes = [Probe((height, width), grey) for height, width, grey in saved["probes"]]
    return dict(zip(saved["kept"], probes, strict=True))


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def listed(sources: Sources) -> list[str]:
    return [f"{sources.name(i)} {sources.stamp(i)}" for i in range(len(sources))]


def _scan(sources: Sources, options: Options, known: dict[int, Probe]) -> Scan:
    total = len(sources)
    # Pixels an image: kept and then laid side by side in three channels, all take the limit.
    room = 0 if options.cache else options.memory_limit // max(1, 2 * 3 * total)

    def result(i: int) -> tuple[Probe | Skipped, Tensor | None]:
        try:
            return (known[i], None) if i in known else probe(sources[i], room, options.channels)
        except UnreadableError as error:
            return Skipped(sources.name(i), str(error)), None

    kept, probes, skipped, pixels = [], [], [], []
    due = monotonic() + SECONDS_BETWEEN_LOGS
    for i, (found, x) in enumerate(in_threads(result, total, options.workers)):
        if isinstance(found, Probe):
            kept.append(i)
            probes.append(found)
            if x is None or found.size != probes[0].size:
                room = 0
                pixels.clear()
            elif room:
                pixels.append(x)
        else:
            skipped.append(found)
        if monotonic() > due:
            options.log(f"checked {i + 1:,} of {total:,} images")
            due = monotonic() + SECONDS_BETWEEN_LOGS
    return Scan(np.array(kept, np.int64), probes, skipped, pixels)


def in_threads(function: Callable[[int], T], count: int, workers: int) -> Iterator[T]:
    """Results in order; threads run ahead of what was taken by a few chunks only.

    Where one takes less than :data:`QUICK` seconds, threads would mostly wait for the interpreter, and there are none.
    """

    def results(start: int) -> list[T]:
        return [function(i) for i in range(start, min(start + CHUNK, count))]

    starts, took = iter(range(0, count, CHUNK)), 0.0
    for start in islice(starts, 2):  # the first warms up
        began = perf_counter()
        found = results(start)
        took = (perf_counter() - began) / len(found)
        yield from found
    if took < QUICK:
        for start in starts:
            yield from results(start)
        return
    threads = workers or os.cpu_count() or 1
    waiting: deque[Future[list[T]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for start in starts:
            waiting.append(pool.submit(results, start))
            if len(waiting) > 2 * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
