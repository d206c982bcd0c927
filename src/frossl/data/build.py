"""From encoded images, wherever they lie, to a :class:`Dataset`: one scan, one skip policy, one store."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from frossl.core.types import UserError
from frossl.data.cache import Stored, describe, directory_for, store
from frossl.data.scan import CACHE, in_threads, listed, look_through
from frossl.data.sources import Decoded, Encoded, LazyImages, Options, Sources
from frossl.data.types import Dataset, LazySequence, Skipped, Split

MAX_HELD_OUT = 10_000
MAX_UNREADABLE = 0.05
LISTED = 20
# Mean and standard deviation settle early: a sample of images, fewer when they are large.
STATISTICS_IMAGES, STATISTICS_PIXELS = 2_000, 2**28
MIN_STD = 1e-3

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


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
    scans = [look_through(part.sources, options) for part in parts]
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

    if in_memory:
        lazy = [Decoded(scan.pixels, channels) if scan.pixels else x for x, scan in zip(lazy, scans, strict=True)]
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

    mean, square = np.stack(list(in_threads(moments, len(chosen), options.workers))).mean(0)
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
    manifest = describe(name, options.cache, channels, listed(sources))
    images = LazyImages(sources, channels, least=2 * options.cache)
    threads = partial(in_threads, workers=options.workers)
    return store(images, directory_for(options.data_dir / CACHE, manifest), manifest, threads, options.log)


def _all_at_once(images: LazySequence, channels: int, size: np.ndarray, options: Options) -> Tensor:
    shape = (len(images), channels, *_pair(size))
    images_NCHW = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)  # as views are cut from it

    def fill(i: int) -> None:
        images_NCHW[i] = images[i]

    for _ in in_threads(fill, len(images), options.workers):
        pass
    return images_NCHW
