"""How all images of a data set are read, decided from what they have in common; notes say what was decided.

Images of 8 bits stay 0 to 255. Those of more share one intensity range, given or measured on training images.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from frossl.core.random import uniforms
from frossl.core.types import UserError
from frossl.data.decode import intensities
from frossl.data.options import Opening
from frossl.data.reading import Reading
from frossl.data.sources import Sources
from frossl.data.threads import in_threads

PERCENTILES = (0.1, 99.9)
NEAR = 0.1
"""The range extends to values within this fraction of the distance between the percentiles beyond them."""
IMAGES, PIXELS, KEY = 1000, 4096, 1 << 33
"""A range is measured on at most so many images, chosen by a hash, and so many evenly spaced pixels of each."""
FEW_LEVELS = 16
ALIKE = 0.5
"""Channels share a range if each spans at least this fraction of it."""
MAX_PAGES = 8
BYTES = b"uint8"
TRANSPARENT = 0.5
"""Fraction of fully opaque or clear pixels from which on an extra sample is transparency."""


def decide(
    name: str, sources: Sources, training: np.ndarray, probes: np.ndarray, options: Opening
) -> tuple[Reading, list[str]]:
    """How images are read, from the ``probes`` of all of them, :data:`~frossl.data.scan.PROBE`, and notes on it.

    ``training`` are those of the training images, which are among ``sources``.

    Raises:
        UserError: they have nothing in common, or a range would leave almost nothing of them; says what to give.
    """
    pages, notes = _pages(name, probes, options)
    extra = _extra(probes, notes)
    channels = _channels(name, probes, options, pages, extra, notes)
    reading = Reading(channels, extra=extra, pages=pages, types=tuple(dtypes(probes)))
    shallow = int((probes["dtype"] == BYTES).sum())
    deep = [dtype for dtype in dtypes(probes) if dtype != BYTES.decode()]
    if moving := int(probes["moving"].sum()):
        notes.append(f"{moving:,} files are animations, only their first frame is used")
    if not deep and not options.range:
        return replace(reading, deep=False), notes
    if len(deep) > 1 and not options.range:
        raise UserError(f"{name}: values of {' and '.join(deep)} have no common range; give it: --range LOW HIGH")
    if deep and shallow:
        notes.append(f"{shallow:,} images of 8 bits among them stay 0 to 255")
    places = training["place"][(training["dtype"] != BYTES) == bool(deep)]
    if not len(places):
        raise UserError(
            f"{name}: held-out images are of {' and '.join(deep)}, training images are not; give both alike"
        )
    reading = replace(reading, deep=bool(deep))
    reading, note = fit_range(name, *_sampled(sources, places, reading, options), reading, options.range)
    return reading, [*notes, note]


def dtypes(probes: np.ndarray) -> list[str]:
    """The types of values among ``probes``, sorted."""
    return np.unique(probes["dtype"]).astype(str).tolist()


def _pages(name: str, probes: np.ndarray, options: Opening) -> tuple[int, list[str]]:
    """How many pages are read as channels, 0 if only the first page is read; and notes."""
    numbers = np.unique(probes["pages"])
    most = int(numbers.max())
    if most == 1:
        return 0, []
    if options.pages == "first":
        return 0, [f"only the first page of each file is read, of up to {most}"]
    stack = bool(probes["stack"].any()) or most > MAX_PAGES
    if len(numbers) > 1:
        problem = f"files hold from {numbers.min()} to {most} pages, which cannot be channels"
    elif options.pages == "channels" or not stack:
        return most, [f"the {most} pages of each file are its channels"]
    else:
        problem = f"each file holds a stack of {most} pages. --pages channels reads them as channels"
    raise UserError(f"{name}: {problem}. --pages first reads the first of each; or write a file for each page")


def _extra(probes: np.ndarray, notes: list[str]) -> bool:
    """Whether the extra sample is a channel and not transparency; adds a note."""
    shares = probes["opaque"][~np.isnan(probes["opaque"])]
    if not len(shares):
        return False
    share = shares.mean()
    if share >= TRANSPARENT:
        notes.append(f"the last sample of {len(shares):,} images is transparency and laid over white")
        return False
    notes.append(f"the last sample is a channel, not transparency: {share:.0%} of its pixels are fully opaque or clear")
    return True


def _channels(name: str, probes: np.ndarray, options: Opening, pages: int, extra: bool, notes: list[str]) -> int:
    """The number of channels of all images, found or asked for; adds a note on channels that are not used."""
    samples = probes["samples"] + (extra & ~np.isnan(probes["opaque"]))
    found = Counter((samples * probes["pages"] if pages else samples).tolist())
    most, asked = max(found), options.channels
    counts = ", ".join(f"{number:,} with {channels}" for channels, number in sorted(found.items()))
    if asked is None:
        if len(found) > 1 and set(found) != {1, 3}:
            least = min(found)
            raise UserError(
                f"{name}: images differ in their channels ({counts}); --channels {least} reads the first {least}"
            )
        return most
    if any(channels < asked and (channels, asked) != (1, 3) for channels in found):
        raise UserError(f"{name}: --channels {asked}, but there are images of fewer channels ({counts})")
    if most > asked and (most, asked) != (3, 1):
        notes.append(f"channels {asked + 1} to {most} are not used")
    return asked


def _sampled(sources: Sources, places: np.ndarray, reading: Reading, options: Opening) -> tuple[np.ndarray, int]:
    """Values ``(P, C)`` of some pixels of some images, and how many images."""
    chosen = choose(places)

    def some(i: int) -> np.ndarray:
        return reading.used(some_pixels(intensities(sources[int(chosen[i])], reading, options.max_pixels)))

    found = list(in_threads(some, len(chosen), options.workers))
    widest = max(values_PC.shape[1] for values_PC in found)
    return np.concatenate([np.broadcast_to(v, (len(v), widest)) for v in found]), len(found)


def choose(places: np.ndarray) -> np.ndarray:
    """At most 1,000 of ``places``, always the same."""
    return places[np.argsort(uniforms(1, KEY, places)[:, 0], kind="stable")[:IMAGES]]


def some_pixels(values_HWC: np.ndarray) -> np.ndarray:
    """At most 4,096 pixels ``(P, C)`` of an image, evenly spaced."""
    values_PC = values_HWC.reshape(-1, values_HWC.shape[2])
    return values_PC[:: -(-len(values_PC) // PIXELS)].astype(np.float64)


def fit_range(
    name: str, values_PC: np.ndarray, images: int, reading: Reading, given: tuple[float, ...] | None
) -> tuple[Reading, str]:
    """``reading`` with the range ``given`` or that of values ``(P, C)``, and a note on the levels that remain.

    It is measured from percentile 0.1 to 99.9 of what is finite, and as far as values go within a tenth of that beyond;
    one for all channels, unless one of them takes less than half of it.

    Raises:
        UserError: all is NaN or infinite, or less than 16 of many levels are left.
    """
    finite = [column[np.isfinite(column)] for column in values_PC.T]
    if not all(map(len, finite)):
        raise UserError(f"{name}: no value of a channel is finite; leave such images out")
    range_ = given or _measured(finite)
    widest = values_PC.shape[1]
    if given and len(given) not in (2, 2 * reading.channels, 2 * widest):
        raise UserError(
            f"--range {' '.join(f'{value:g}' for value in range_)}: give 2 numbers, or 2 for each of {reading.channels}"
        )
    reading = replace(reading, range=range_)
    values_PC = np.broadcast_to(values_PC, (len(values_PC), max(widest, len(range_) // 2)))
    finite = finite * (values_PC.shape[1] // widest)
    left = [len(np.unique(column)) for column in reading.to_bytes(values_PC[:, None])[:, 0].T]
    levels = [len(np.unique(column)) for column in finite]
    least = min(range(len(left)), key=left.__getitem__)
    pairs = ", ".join(f"{low:g} to {high:g}" for low, high in zip(range_[::2], range_[1::2], strict=True))
    said = f"intensities {pairs} become 0 to 255; {left[least]:,} of {levels[least]:,} levels are left"
    if left[least] < FEW_LEVELS and levels[least] > left[least]:
        raise UserError(f"{name}: {said}, too few to learn from; give the range that matters: --range LOW HIGH")
    measured = f"all but glints of {images:,} images, from percentiles {PERCENTILES[0]} and {PERCENTILES[1]}"
    share = 1 - sum(map(len, finite)) / values_PC.size
    said = f"{said} ({'given' if given else measured}; --range)"
    return reading, said + (f"; {share:.2g} of the values are not finite" if share else "")


def _measured(finite: list[np.ndarray]) -> tuple[float, ...]:
    pairs = []
    for column in finite:
        low, high = np.percentile(column, PERCENTILES)
        near = column[(column >= low - NEAR * (high - low)) & (column <= high + NEAR * (high - low))]
        low, high = near.min(), near.max()
        if low == high:  # few pixels differ from all others
            low, high = column.min(), max(column.max(), column.min() + 1)
        pairs.append((float(f"{low:.6g}"), float(f"{high:.6g}")))
    low, high = min(low for low, _ in pairs), max(high for _, high in pairs)
    alike = all(b - a >= ALIKE * (high - low) for a, b in pairs)
    return (low, high) if alike else tuple(value for pair in pairs for value in pair)
