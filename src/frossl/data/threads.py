"""Work on many images in threads, with progress in the log."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from time import monotonic, perf_counter
from typing import TypeVar

from frossl.core.machine import available_cores
from frossl.data.options import Log

CHUNK, QUICK = 16, 2.5e-4
"""Images that a thread takes at a time; seconds an image below which a second thread makes it slower."""
SECONDS_BETWEEN_LOGS = 10

T = TypeVar("T")


def in_threads(function: Callable[[int], T], count: int, workers: int | None) -> Iterator[T]:
    """Results of 0 .. count - 1 in order; threads run ahead of what was taken by a few chunks only.

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
    threads = workers or len(available_cores())
    waiting: deque[Future[list[T]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for start in starts:
            waiting.append(pool.submit(results, start))
            if len(waiting) > 2 * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def counted(results: Iterable[T], done: str, first: int, total: int, log: Log) -> Iterator[T]:
    """``results``, numbered from ``first`` to ``total``; logs every 10 s how many are done."""
    due = monotonic() + SECONDS_BETWEEN_LOGS
    for number, result in enumerate(results, first):
        yield result
        if monotonic() > due:
            log(f"{done} {number:,} of {total:,} images")
            due = monotonic() + SECONDS_BETWEEN_LOGS
