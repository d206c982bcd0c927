"""From encoded images of any source to a :class:`Dataset`: one scan, one rule for broken images, one store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from frossl.core.shared import SharedArray
from frossl.core.types import UserError
from frossl.data.cache import Stored, store
from frossl.data.decide import choose, decide, dtypes
from frossl.data.formats import note_on_large
from frossl.data.options import Opening
from frossl.data.scan import look_through
from frossl.data.sources import Encoded, LazyImages
from frossl.data.threads import in_threads
from frossl.data.types import Dataset, LazySequence, Skipped, Split

MAX_HELD_OUT = 10_000
ORDERS, MAX_TURNS = 20, 200_000
"""Orders of groups that are tried, and the most groups in all of them."""
MAX_UNREADABLE = 0.05
LISTED = 20
# Mean and standard deviation settle early: a sample of images, fewer when they are large.
STATISTICS_IMAGES, STATISTICS_PIXELS, LEVELS_PIXELS = 2_000, 2**28, 4096
MIN_STD = 1e-3

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def build(
    name: str,
    source: str,
    parts: Sequence[Encoded],
    classes: tuple[str, ...],
    options: Opening,
    notes: Sequence[str] = (),
    statistics: Statistics | None = None,
) -> Dataset:
    """Scan every image of one split or two, leave out the unreadable, hold some out of one, and store the rest.

    Raises UserError when more than 5 % of the images (and more than one) or all but one are unreadable.
    """
    places = [np.arange(len(part.sources)) for part in parts]
    if options.check == "on-read":
        places[0] = np.sort(choose(places[0]))
    scans = [look_through(part.sources, options, at) for part, at in zip(parts, places, strict=True)]
    read = list(zip(parts, scans, strict=True))
    skipped, readable = [skip for scan in scans for skip in scan.skipped], [len(scan.probes) for scan in scans]
    _check_readable(source, skipped, readable)
    probes = np.concatenate([scan.probes for scan in scans])
    reading, said = decide(source, parts[0].sources, scans[0].probes, probes, options)
    notes, channels = [*notes, *said], reading.channels
    lazy = []
    for part, scan in read:
        kept, least = scan.kept.view(SharedArray), 2 * (options.cache or 0)
        x = LazyImages(part.sources, kept, reading, least, options.max_pixels, not scan.whole)
        lazy.append(x if options.cache is None else store(name, x, options.cache, options))
    labels = [None if part.labels is None else part.labels[scan.kept] for part, scan in read]
    stored = [x.rows[:, 1:3] for x in lazy if isinstance(x, Stored)]
    sizes = np.concatenate(stored) if stored else probes["size"].astype(np.int64)
    size, largest = sizes.min(0), sizes.max(0)
    in_memory = (size == largest).all() and len(sizes) * channels * int(size.prod()) <= options.memory_limit
    if not scans[0].whole:
        in_memory = False
        notes.append(
            f"--check on-read: {readable[0]:,} images, chosen by a hash, decide the sizes, channels and values "
            "of all; an image that cannot be read later is replaced by another and listed"
        )
    notes = [*notes, *note_on_large(probes["size"], options.cache)]
    places = [np.arange(len(x)) for x in lazy]
    if len(parts) == 1:  # chosen here, so that one store serves every choice
        groups = None if parts[0].groups is None else parts[0].groups[scans[0].kept]
        places, note = hold_out(len(scans[0].kept), labels[0], options, groups)
        lazy, scans, labels, notes = 2 * lazy, 2 * scans, 2 * labels, [*notes, note]
    if isinstance(lazy[1], LazyImages) and lazy[1].unchecked:  # figures depend on each of them
        good, broken = lazy[1].select(places[1]).check(options.workers)
        skipped += broken
        _check_readable(source, skipped, [*readable, len(good)])
        lazy[1], places[1] = replace(lazy[1], unchecked=False), places[1][good]
    splits = []
    for x, scan, y, index in zip(lazy, scans, labels, places, strict=True):
        images = _stack(scan.pixels or x, index, (channels, *size), options) if in_memory else x.select(index)
        splits.append(Split(images, None if y is None else torch.from_numpy(y[index])))
    data = assemble(name, splits[0], splits[1], source, classes, options, sizes, notes, statistics)
    values = " and ".join(dtypes(probes))
    return replace(data, values=values, range=reading.range, skipped=tuple(skipped), drawn=len(parts) == 1)


def assemble(
    name: str,
    train: Split,
    test: Split,
    source: str,
    classes: tuple[str, ...],
    options: Opening,
    sizes: np.ndarray | None = None,
    notes: Sequence[str] = (),
    statistics: Statistics | None = None,
) -> Dataset:
    """Two splits as a data set. ``sizes`` ``(N, 2)`` of all images are those of the tensors if not given."""
    if classes and options.targets == "values":
        raise UserError(f"--targets values: the labels of {source} are names of classes; leave it out")
    if sizes is None:
        sizes = np.repeat([split.images[0].shape[1:] for split in (train, test)], [len(train), len(test)], axis=0)
    channels = train.images[0].shape[0]
    known = statistics if statistics and len(statistics[0]) == channels else None
    mean, std, levels = (*known, None) if known else measure(train.images, options)
    sides = (sizes.min(0), sizes.max(0), np.median(sizes, axis=0))
    smallest, largest, typical = ((int(height), int(width)) for height, width in sides)
    return Dataset(
        name=name,
        train=train,
        test=test,
        classes=classes,
        channels=channels,
        mean=mean,
        std=std,
        smallest=smallest,
        largest=largest,
        typical=typical,
        source=source,
        levels=levels,
        notes=tuple(notes),
    )


def measure(images: Tensor | LazySequence, options: Opening) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Mean and standard deviation per channel of images in [0, 1], each image weighing the same; and levels in use.

    From evenly spaced images, at most 2,000; the standard deviation is at least 0.001. Sums over an image are of whole
    numbers, so that neither its layout nor the number of threads changes a bit. Levels are counted over all channels
    on some pixels of each.
    """
    used = np.zeros(256, bool)
    affordable = max(50, STATISTICS_PIXELS // images[0][0].numel())
    chosen = np.linspace(0, len(images) - 1, min(len(images), STATISTICS_IMAGES, affordable)).astype(int)

    def moments(i: int) -> np.ndarray:
        x_CP = images[int(chosen[i])].flatten(1).numpy()
        used[x_CP[:, :: -(-x_CP.shape[1] // LEVELS_PIXELS)]] = True
        sums, squares = x_CP.sum(1, dtype=np.uint64), np.square(x_CP, dtype=np.uint16).sum(1, dtype=np.uint64)
        return np.stack([sums / (255 * x_CP.shape[1]), squares / (255**2 * x_CP.shape[1])])

    mean, square = np.stack(list(in_threads(moments, len(chosen), options.workers))).mean(0)
    std = np.sqrt(np.maximum(square - np.square(mean), MIN_STD**2))
    return tuple(mean.tolist()), tuple(std.tolist()), int(used.sum())


def hold_out(
    count: int, labels: np.ndarray | None, options: Opening, groups: np.ndarray | None = None
) -> tuple[list[np.ndarray], str]:
    """Indices of training and of held-out images, with nearly the same fraction of each of the :func:`strata`; a note.

    In a seeded order, the k-th of the n images of a class gets the rank (k + 1/2) / n; the lowest ranks are held out.
    ``groups`` names the group of each image; groups stay whole.
    """
    order = np.random.default_rng(options.seed).permutation(count)
    even = np.zeros(count, np.int64) if labels is None else strata(labels)
    few, whole = min(MAX_HELD_OUT, count - 1, max(1, round(options.held_out * count))), ""
    if groups is None:
        place, labels = np.empty(count), even[order]
        by_class, (_, sizes) = np.argsort(labels, kind="stable"), np.unique(labels, return_counts=True)
        place[by_class] = (np.arange(count) - np.repeat(sizes.cumsum() - sizes, sizes) + 0.5) / np.repeat(sizes, sizes)
        first = order[np.argsort(place, kind="stable")]
    else:
        held, whole = whole_groups(groups, even, few / count, options.seed)
        first, few = np.argsort(~held, kind="stable"), int(held.sum())
    note = f"no held-out split found: {100 * few / count:.2g} % of the images ({few:,}{whole})"
    return [np.sort(first[few:]), np.sort(first[:few])], f"{note} held out by seed {options.seed}"


def validation_part(data: Dataset, share: float) -> Dataset:
    """``data`` with ``share`` of its training images, evenly over the classes, in place of the held-out ones.

    They are the same at every call. The held-out images are in neither part.
    """
    labels = None if data.train.labels is None else data.train.labels.numpy()
    places, _ = hold_out(len(data.train), labels, Opening(held_out=share))
    train, test = (data.train.select(torch.from_numpy(index)) for index in places)
    note = f"options are chosen on {len(test):,} of the training images; the held-out images are not used"
    return replace(data, train=train, test=test, notes=(*data.notes, note))


def whole_groups(groups: np.ndarray, strata: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, str]:
    """Which images are held out, in whole groups, and a phrase with the number of groups.

    In a seeded order a group is held out if that brings the strata nearer to ``share``; of some orders the best.

    Raises:
        UserError: there is one group only.
    """
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise UserError(f"--group: all images are of one group, {names[0]!r}; at least two are needed, one held out")
    _, stratum = np.unique(strata, return_inverse=True)
    pairs, counts = np.unique(np.stack([group, stratum], 1), axis=0, return_counts=True)
    starts = np.searchsorted(pairs[:, 0], np.arange(len(names) + 1))
    goal, rng, best = share * np.bincount(stratum), np.random.default_rng(seed), (np.inf, np.empty(0))
    for _ in range(max(1, min(ORDERS, MAX_TURNS // len(names)))):
        missing, held = goal.copy(), np.zeros(len(names), bool)
        for i in rng.permutation(len(names)):
            of, n = pairs[starts[i] : starts[i + 1], 1], counts[starts[i] : starts[i + 1]]
            held[i] = np.abs(missing[of] - n).sum() < np.abs(missing[of]).sum()
            missing[of] -= n * held[i]
        best = min(best, (np.abs(missing).sum(), held), key=lambda pair: pair[0])
    held, smallest = best[1], np.bincount(group).argmin()
    if held.all() or not held.any():
        held[smallest] = not held[smallest]
    return held[group], f", {held.sum():,} of {len(names):,} groups"


def strata(labels: np.ndarray) -> np.ndarray:
    """The stratum of each image, as a number: its class, the decile of its value, or its combination of labels."""
    if labels.dtype.kind == "f":
        return np.argsort(np.argsort(labels, kind="stable")) * 10 // len(labels)
    return labels if labels.ndim == 1 else np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)


def _check_readable(source: str, skipped: Sequence[Skipped], in_splits: Sequence[int]) -> None:
    readable = sum(in_splits)
    total = readable + len(skipped)
    if len(skipped) > max(1, MAX_UNREADABLE * total):
        problem = f"{len(skipped):,} of {total:,} images cannot be read, more than {MAX_UNREADABLE:.0%}"
    elif readable < 2:
        problem = f"{readable} readable image{'s' * (readable != 1)}, at least 2 are needed (to train on, to hold out)"
    elif not all(in_splits):
        problem = "one of its two splits has no readable image"
    else:
        return
    lines = [f"{skip.path}: {skip.reason}" for skip in skipped[:LISTED]]
    lines += [f"and {len(skipped) - LISTED:,} more"] if len(skipped) > LISTED else []
    listed = "".join(f"\n  {line}" for line in lines)
    raise UserError(f"{source}: {problem}.{listed}\nMend or remove such files, add images, and try again.")


def _stack(images: LazySequence | list[Tensor], index: np.ndarray, shape: tuple[int, ...], options: Opening) -> Tensor:
    """The images at ``index`` in one tensor of ``shape`` ``(C, H, W)``; grey images are broadcast over channels."""
    shape = (len(index), *map(int, shape))
    images_NCHW = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)  # as views are cut from it

    def fill(i: int) -> None:
        images_NCHW[i] = images[int(index[i])]

    for _ in in_threads(fill, len(index), options.workers):
        pass
    return images_NCHW
