"""From encoded images, wherever they lie, to a :class:`Dataset`: one scan, one skip policy, one store."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from time import monotonic, perf_counter
from typing import NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from frossl.core.files import write_text
from frossl.core.types import UserError
from frossl.data.cache import SECONDS_BETWEEN_LOGS, Stored, alone, describe, directory_for, store
from frossl.data.decode import Probe, UnreadableError, decode, probe
from frossl.data.types import Dataset, LazySequence, Skipped, Split

MAX_HELD_OUT = 10_000
MAX_UNREADABLE = 0.05
LISTED = 20
CHUNK, QUICK = 16, 2.5e-4
"""Images that a thread takes at a time; seconds an image below which a second thread makes it slower."""
CACHE = "cache"
"""Where stores of decoded images lie below the directory of the data."""
# Mean and standard deviation settle early: a sample of images, fewer when they are large.
STATISTICS_IMAGES, STATISTICS_PIXELS = 2_000, 2**28
MIN_STD = 1e-3

T = TypeVar("T")
Statistics = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to open a data set; the fields are the options of :func:`frossl.data.open.open_data`."""

    data_dir: Path = Path("data")
    labels: bool = True
    channels: int | None = None
    held_out: float = 0.1
    seed: int = 0
    memory_limit: int = 2 * 2**30
    workers: int = 0
    cache: int | None = None
    log: Callable[[str], None] = lambda message: None

    def __post_init__(self) -> None:
        if self.cache is not None and self.cache < 1:
            raise UserError(f"a cache of images with a shorter side of {self.cache} pixels: give at least 1")
        if self.channels not in (None, 1, 3):
            raise UserError(f"channels = {self.channels}: give 1 (grey), 3 (colour), or none to choose by the images")
        if not 0 < self.held_out < 1:
            raise UserError(f"held_out = {self.held_out}: give a fraction between 0 and 1, for example 0.1")


class Sources(Protocol):
    """Encoded images in order: paths or bytes, with names for messages. Indexing may raise UnreadableError.

    A stamp is another one when the encoded image may be.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> str | bytes: ...
    def name(self, index: int) -> str: ...
    def stamp(self, index: int) -> str: ...
    def take(self, index: np.ndarray) -> Self: ...


@dataclass(frozen=True, eq=False)
class Encoded:
    """One split before decoding: sources and, when there are any, int64 labels ``(N,)``."""

    sources: Sources
    labels: np.ndarray | None = None

    def take(self, index: np.ndarray) -> Encoded:
        return Encoded(self.sources.take(index), None if self.labels is None else self.labels[index])


@dataclass(frozen=True, eq=False)
class LazyImages:
    """Images decoded at each access, picklable; a file that broke since the scan is a UserError.

    Large JPEGs are decoded at a reduced size with a shorter side of at least ``least`` pixels, if that is not 0.
    """

    sources: Sources
    channels: int
    least: int = 0

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, index: np.ndarray) -> LazyImages:
        """Only the images at ``index``."""
        return replace(self, sources=self.sources.take(index))

    def __getitem__(self, index: int, /) -> Tensor:
        try:
            return decode(self.sources[index], self.channels, self.least)
        except UnreadableError as error:
            raise UserError(
                f"cannot read {self.sources.name(index)}: {error}. It was readable when the data was opened; "
                "put it back, or start again so that it is left out."
            ) from error


def build(
    name: str,
    source: str,
    train: Encoded,
    test: Encoded | None,
    classes: tuple[str, ...],
    options: Options,
    notes: Sequence[str] = (),
    statistics: Statistics | None = None,
) -> Dataset:
    """Scan every image, leave out the unreadable, hold some out if ``test`` is None, and store the rest.

    Raises UserError when more than 5 % of the images (and more than one) or all but one are unreadable.
    """
    parts = [part for part in (train, test) if part is not None]
    scans = [_remembered_scan(part.sources, options) for part in parts]
    skipped = tuple(skip for scan in scans for skip in scan.skipped)
    probes = [probe for scan in scans for probe in scan.probes]
    _check_readable(source, len(probes), skipped)

    kept = [part.take(scan.kept) for part, scan in zip(parts, scans, strict=True)]
    if not all(len(part.sources) for part in kept):
        raise UserError(f"{source}: one of its two splits has no readable image.{_listing(skipped)}")

    channels = options.channels or (1 if all(probe.grey for probe in probes) else 3)
    lazy = [_lazy(name, part.sources, channels, options) for part in kept]
    stored = [x.rows[:, 1:3] for x in lazy if isinstance(x, Stored)]
    sizes = np.concatenate(stored) if stored else np.array([probe.size for probe in probes])
    smallest, largest, typical = sizes.min(0), sizes.max(0), np.median(sizes, axis=0).astype(int)
    small = len(sizes) * channels * int(largest.prod()) <= options.memory_limit
    in_memory = small and bool((smallest == largest).all())

    labels = [part.labels for part in kept]
    notes = list(notes)
    if test is None:  # chosen here, so that one store serves every choice
        places = hold_out(len(probes), labels[0], options)
        lazy = [lazy[0].take(index) for index in places]
        labels = [None if labels[0] is None else labels[0][index] for index in places]
        share = f"{100 * len(places[1]) / len(probes):.2g} % of the images ({len(places[1]):,})"
        notes.append(f"no held-out split found: {share} held out by seed {options.seed}")
    images = [_all_at_once(x, channels, smallest, options) if in_memory else x for x in lazy]
    splits = [Split(x, None if y is None else torch.from_numpy(y)) for x, y in zip(images, labels, strict=True)]
    mean, std = statistics if statistics and len(statistics[0]) == channels else measure(splits[0].images, options)
    return Dataset(
        name=name,
        train=splits[0],
        test=splits[1],
        classes=classes,
        channels=channels,
        mean=mean,
        std=std,
        smallest=_pair(smallest),
        largest=_pair(largest),
        typical=_pair(typical),
        source=source,
        notes=tuple(notes),
        skipped=skipped,
    )


def measure(images: Tensor | LazySequence, options: Options) -> Statistics:
    """Mean and standard deviation per channel of images in [0, 1], each image weighing the same.

    From evenly spaced images, at most 2,000; the standard deviation is at least 0.001. Sums over an image are of whole
    numbers, so that neither its layout nor the number of threads changes a bit.
    """
    affordable = max(50, STATISTICS_PIXELS // images[0][0].numel())
    chosen = np.linspace(0, len(images) - 1, min(len(images), STATISTICS_IMAGES, affordable)).astype(int)

    def moments(i: int) -> np.ndarray:
        x_CP = images[int(chosen[i])].flatten(1).numpy()
        sums, squares = x_CP.sum(1, dtype=np.uint64), np.square(x_CP, dtype=np.uint16).sum(1, dtype=np.uint64)
        return np.stack([sums / (255 * x_CP.shape[1]), squares / (255**2 * x_CP.shape[1])])

    mean, square = np.stack(list(_in_threads(moments, len(chosen), options.workers))).mean(0)
    std = np.sqrt(np.maximum(square - np.square(mean), MIN_STD**2))
    return tuple(mean.tolist()), tuple(std.tolist())


def check_same_classes(train: tuple[str, ...], test: tuple[str, ...], names: tuple[str, str]) -> None:
    """Raise UserError that names the classes only one of two splits has."""
    if set(train) == set(test):
        return
    only = [
        f"only in {name}: {', '.join(sorted(mine - other)[:LISTED])}"
        for name, mine, other in ((names[0], set(train), set(test)), (names[1], set(test), set(train)))
        if mine - other
    ]
    raise UserError(
        f"{names[0]} has {len(train)} classes, {names[1]} has {len(test)}, and they differ ({'; '.join(only)}). "
        "Give both the same classes, or open the data without labels (--no-labels)."
    )


def to_channels(x_NCHW: Tensor, channels: int) -> Tensor:
    """Grey images as colour or colour as grey; raises UserError for other numbers of channels."""
    if x_NCHW.shape[1] == channels:
        return x_NCHW
    if {x_NCHW.shape[1], channels} != {1, 3}:
        raise UserError(
            f"images of {x_NCHW.shape[1]} channels cannot be read as {channels}, only grey as colour and colour as grey"
        )
    if channels == 3:
        return x_NCHW.expand(-1, 3, -1, -1).contiguous()
    luma_C11 = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    parts = [(part * luma_C11).sum(1, keepdim=True).round().byte() for part in x_NCHW.split(4096)]
    return torch.cat(parts)


def _pair(size: np.ndarray) -> tuple[int, int]:
    return int(size[0]), int(size[1])


def _in_threads(function: Callable[[int], T], count: int, workers: int) -> Iterator[T]:
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


class Scan(NamedTuple):
    """Which sources are readable, by their places, what they are, and the others."""

    kept: np.ndarray
    probes: list[Probe]
    skipped: list[Skipped]


def _remembered_scan(sources: Sources, options: Options) -> Scan:
    """With a cache, images are looked through once, too; those that could not be read are tried again."""
    if options.cache is None:
        return _scan(sources, options, {})
    path = options.data_dir / CACHE / f"scan-{_digest(json.dumps(_listed(sources)))[:16]}.json"
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


def _listed(sources: Sources) -> list[str]:
    return [f"{sources.name(i)} {sources.stamp(i)}" for i in range(len(sources))]


def _scan(sources: Sources, options: Options, known: dict[int, Probe]) -> Scan:
    total = len(sources)

    def result(i: int) -> Probe | Skipped:
        try:
            return known.get(i) or probe(sources[i])
        except UnreadableError as error:
            return Skipped(sources.name(i), str(error))

    kept, probes, skipped = [], [], []
    due = monotonic() + SECONDS_BETWEEN_LOGS
    for i, found in enumerate(_in_threads(result, total, options.workers)):
        if isinstance(found, Probe):
            kept.append(i)
            probes.append(found)
        else:
            skipped.append(found)
        if monotonic() > due:
            options.log(f"checked {i + 1:,} of {total:,} images")
            due = monotonic() + SECONDS_BETWEEN_LOGS
    return Scan(np.array(kept, np.int64), probes, skipped)


def _check_readable(source: str, readable: int, skipped: tuple[Skipped, ...]) -> None:
    total = readable + len(skipped)
    if len(skipped) > max(1, MAX_UNREADABLE * total):
        raise UserError(
            f"{source}: {len(skipped):,} of {total:,} images cannot be read, more than {MAX_UNREADABLE:.0%}."
            f"{_listing(skipped)}\nMend or remove these files, then try again."
        )
    if readable < 2:
        raise UserError(
            f"{source}: {readable} readable image{'s' * (readable != 1)}, at least 2 are needed "
            f"(one to train on, one held out).{_listing(skipped)}\nAdd images, then try again."
        )


def _listing(skipped: tuple[Skipped, ...]) -> str:
    lines = [f"\n  {skip.path}: {skip.reason}" for skip in skipped[:LISTED]]
    more = [f"\n  and {len(skipped) - LISTED:,} more"] if len(skipped) > LISTED else []
    return "".join(lines + more)


def hold_out(count: int, labels: np.ndarray | None, options: Options) -> list[np.ndarray]:
    """Places in two so that every class gives the same share, as nearly as whole images allow.

    In a seeded order, the k-th of a class's n images stands at (k + 1/2) / n; those that stand first are held out.
    """
    order = np.random.default_rng(options.seed).permutation(count)
    labels = np.zeros(count, np.int64) if labels is None else labels[order]
    place = np.empty(count)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    first = order[np.argsort(place, kind="stable")]
    held_out = min(MAX_HELD_OUT, count - 1, max(1, round(options.held_out * count)))
    return [np.sort(first[held_out:]), np.sort(first[:held_out])]


def _lazy(name: str, sources: Sources, channels: int, options: Options) -> LazyImages | Stored:
    if options.cache is None:
        return LazyImages(sources, channels)
    manifest = describe(name, options.cache, channels, _listed(sources))
    images = LazyImages(sources, channels, least=2 * options.cache)
    threads = partial(_in_threads, workers=options.workers)
    return store(images, directory_for(options.data_dir / CACHE, manifest), manifest, threads, options.log)


def _all_at_once(images: LazySequence, channels: int, size: np.ndarray, options: Options) -> Tensor:
    shape = (len(images), channels, *_pair(size))
    images_NCHW = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)  # as views are cut from it

    def fill(i: int) -> None:
        images_NCHW[i] = images[i]

    for _ in _in_threads(fill, len(images), options.workers):
        pass
    return images_NCHW
