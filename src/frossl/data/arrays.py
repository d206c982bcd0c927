"""Images in arrays, of any number of channels: tensors in Python, or a file of NumPy."""

from __future__ import annotations

from dataclasses import replace
from lzma import LZMAError
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from frossl.core.types import UserError
from frossl.data.build import assemble, hold_out
from frossl.data.decide import choose, fit_range, some_pixels
from frossl.data.decode import BROKEN
from frossl.data.options import Opening
from frossl.data.reading import Reading
from frossl.data.targets import read_labels
from frossl.data.types import Dataset, Split

EXTENSIONS = (".npy", ".npz")
ORDERS = ("NHWC", "NCHW", "HWCN", "NHW", "HWN")
MAX_CHANNELS = 16
"""Of more channels the axes must be given."""
TRAIN, HELD_OUT = ("train_images", "images"), ("test_images", "val_images")


def from_tensors(
    train: Split,
    test: Split | None = None,
    *,
    name: str = "tensors",
    classes: tuple[str, ...] = (),
    tags: tuple[str, ...] = (),
    held_out: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Uint8 images ``(N, C, H, W)`` of any number C of channels as a data set, for ``frossl.pretrain(data)``.

    Labels are int64 ``(N,)``, numbers of ``classes``, -1 where unknown; or values to predict, floats ``(N,)``, NaN
    where unknown; or 0 and 1 for each of K labels, int64 or bool ``(N, K)``, whose names are ``tags``. Without
    ``test``, the fraction ``held_out`` of the images is chosen by ``seed``. Raises UserError for images or labels that
    are none of that.
    """
    options, notes = Opening(held_out=held_out, seed=seed), []
    train, test = _checked(train, classes, tags), None if test is None else _checked(test, classes, tags)
    if test is None:
        if len(train) < 2:
            raise UserError(f"{name}: {len(train)} images, at least 2 are needed (one to train on, one held out)")
        places, note = hold_out(len(train), None if train.labels is None else train.labels.numpy(), options)
        train, test = (train.select(torch.from_numpy(index)) for index in places)
        notes = [note]
    channels, others = train.images[0].shape[0], test.images[0].shape[0]
    if channels != others:
        raise UserError(f"{name}: training images have {channels} channels, held-out images {others}; give the same")
    data = assemble(name, train, test, "tensors in memory", classes, options, notes=notes)
    data = replace(data, drawn=bool(notes))
    if train.labels is None or train.labels.ndim == 1:
        return data
    return replace(data, tags=tags or tuple(map(str, range(train.labels.shape[1]))))


def _checked(split: Split, classes: tuple[str, ...], tags: tuple[str, ...]) -> Split:
    """The split, with labels that are bool as int64."""
    x, y = split.images, split.labels
    if not isinstance(x, Tensor) or x.dtype != torch.uint8 or x.ndim != 4 or not x.numel():
        got = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise UserError(f"images are a uint8 tensor (N, C, H, W) with values from 0 to 255; got {got}")
    if y is None:
        return split
    several = y.ndim == 2 and y.shape[1] > 1
    whole = y.dtype == torch.int64 or (several and y.dtype == torch.bool)
    if not (several or y.ndim == 1) or len(y) != len(x) or not (whole or (y.is_floating_point() and not several)):
        raise UserError(f"labels of {len(x):,} images are int64 ({len(x)},); got {tuple(y.shape)} of {y.dtype}")
    if y.is_floating_point():
        if classes or bool(y.isinf().any()):
            got = f"{len(classes)} names of classes" if classes else "an infinite one"
            raise UserError(f"floats as labels are values to predict, finite or NaN where unknown; got {got}")
        return split
    low, high = int(y.min()), int(y.max())
    if several and not (-1 <= low <= high <= 1 and len(tags) in (0, y.shape[1])):
        got = f"{y.shape[1]} from {low} to {high}, with {len(tags)} names"
        raise UserError(f"several labels of an image are 0 or 1 each, or -1 where unknown; got {got}")
    if not (several or -1 <= low <= high < len(classes)):
        raise UserError(
            f"labels go from {low} to {high}, with {len(classes)} names of classes; name all, or give values to "
            "predict as floats"
        )
    return Split(x, y.long())


def open_arrays(path: Path, options: Opening) -> Dataset:
    """A ``.npy`` file of images, or an ``.npz`` file with ``images`` and perhaps ``labels`` (or MedMNIST's names).

    Images are ``(N, H, W)`` or ``(N, H, W, C)``, or in another order of axes that their shape or ``axes`` tells; bytes
    from 0 to 255, or other numbers, of which a range becomes that. Labels are one number or word for each, -1 or NaN
    where unknown, or 0 and 1 for each of K labels, ``(N, K)``.
    ``train_images``, ``train_labels``, ``test_images`` and ``test_labels`` bring their own split, or ``val_`` in place
    of ``test_``.
    """
    if options.cache is not None:
        raise UserError(f"{path} holds decoded images already; leave --cache out")
    arrays = _arrays(path)
    keys = [key for key in arrays if key in (*TRAIN, *HELD_OUT)]
    orders = {key: _axes(path, key, arrays[key].shape, arrays.get(_labels_of(key)), options.axes) for key in keys}
    if len(set(orders.values())) > 1:
        raise UserError(f"{path}: axes differ ({orders}); write both arrays alike, or say which with --axes")
    images, reading, said = _as_bytes(path, [_in_order(path, key, arrays[key], orders[key]) for key in keys], options)
    splits, classes, tags, notes = [Split(x) for x in images], (), (), []
    if options.labels:
        found = (_labels(path, key, arrays, len(x)) for key, x in zip(keys, images, strict=True))
        given = [y for y in found if y is not None]
        notes = [f"no labels: no array {' and '.join(map(_labels_of, keys))} with one word or number for each image"]
        if len(given) == len(images):
            read = read_labels(np.concatenate(given).tolist(), targets=options.targets)
            classes, tags, notes = read.classes, read.tags, [read.note or "no labels: none is known"]
            if read.note:
                parts = torch.from_numpy(read.numbers).split([len(x) for x in images])
                splits = [Split(x, y) for x, y in zip(images, parts, strict=True)]
    how = {"name": path.stem, "held_out": options.held_out, "seed": options.seed}
    data = from_tensors(*splits, classes=classes, tags=tags, **how)
    notes = (*said, *data.notes, *notes)
    values = arrays[keys[0]].dtype.name
    return replace(data, source=f"arrays in {path}", values=values, range=reading.range, notes=notes)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that are used, by name: training images, their labels, and those held out."""
    try:
        loaded = np.load(path, mmap_mode="c", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"images": loaded}
        with loaded:
            names = loaded.files
            keys = [key for group in (TRAIN, HELD_OUT) for key in [name for name in group if name in names][:1]]
            if not keys or keys[0] not in TRAIN:
                raise LookupError(f"it has no array {' or '.join(TRAIN)}, only {', '.join(sorted(names))}; name it so")
            arrays = {name: loaded[name] for key in keys for name in (key, _labels_of(key)) if name in names}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{name} in it is no .npy file")
        return arrays
    except (*BROKEN, MemoryError, BadZipFile, LZMAError) as error:  # also of encrypted or hostile files
        raise UserError(f"cannot read {path} as arrays of NumPy: {str(error) or type(error).__name__}") from None


def _labels_of(key: str) -> str:
    return key.replace("images", "labels")


def _axes(path: Path, key: str, shape: tuple[int, ...], labels: np.ndarray | None, given: str | None) -> str:
    """The order of the axes: as many images as labels, few channels, and no other order that fits.

    Raises:
        UserError: several orders fit, or none; says what to give.
    """
    if given is not None and len(given) == len(shape):
        return given
    count = None if labels is None or not labels.ndim else len(labels)
    if len(shape) == 3 and shape[2] in (3, 4) and min(shape[:2]) > 4 and shape[2] != count:
        raise UserError(f"{path}: {key} is {shape}, one image in colour; give several, as (N, H, W, C)")

    def fits(axes: str, count: int | None) -> bool:
        size = dict(zip(axes, shape, strict=True))
        if size.get("C", 0) > min(MAX_CHANNELS, size["H"], size["W"]):
            return False
        if count is not None:
            return size["N"] == count
        return axes[0] == "N" or (size["H"] == size["W"] != size["N"] and shape[-2] != shape[-1])

    orders = [axes for axes in ORDERS if len(axes) == len(shape)]
    fitting = [axes for axes in orders if fits(axes, count)] or [axes for axes in orders if fits(axes, None)]
    if len(fitting) == 1:
        return fitting[0]
    doubt = f"its axes may be {' or '.join(fitting)}" if fitting else f"its axes are none of {', '.join(ORDERS)}"
    raise UserError(f"{path}: {key} is {shape}, {doubt}; say which with --axes, for example --axes {ORDERS[0]}")


def _in_order(path: Path, key: str, array: np.ndarray, axes: str) -> np.ndarray:
    """As ``(N, H, W, C)``, not copied; black and white are 0 and 255."""
    if array.dtype.kind not in "buif" or not array.size:
        raise UserError(f"{path}: {key} must be images in numbers, got {array.shape} of {array.dtype}")
    array = array if array.dtype != bool else array.astype(np.uint8) * 255
    axes, array = (axes, array) if "C" in axes else (axes + "C", array[..., None])
    return array.transpose([axes.index(axis) for axis in "NHWC"])


def _as_bytes(path: Path, images: list[np.ndarray], options: Opening) -> tuple[list[Tensor], Reading, list[str]]:
    """Images ``(N, H, W, C)`` as uint8 ``(N, C, H, W)`` on one range, how they are read, and notes."""
    kinds = sorted({x.dtype.name for x in images})
    if len(kinds) > 1:
        raise UserError(f"{path}: training and held-out images are of {' and '.join(kinds)}; give both the same type")
    found = images[0].shape[3]
    reading, notes = Reading(options.channels or found, deep=kinds != ["uint8"]), []
    if reading.deep or options.range:
        chosen = choose(np.arange(len(images[0])))
        values_PC = np.concatenate([reading.used(some_pixels(images[0][i])) for i in chosen])
        reading, note = fit_range(str(path), values_PC, len(chosen), reading, options.range)
        notes.append(note)
    if reading.channels > found and (found, reading.channels) != (1, 3):
        raise UserError(f"{path}: --channels {reading.channels}, but images have {found}")
    if reading.channels < found and (found, reading.channels) != (3, 1):
        notes.append(f"of {found} channels the first {reading.channels} are used")
    if not reading.range and reading.channels == found:
        return [torch.from_numpy(x).permute(0, 3, 1, 2) for x in images], reading, notes
    return [reading.to_tensor(x) for x in images], reading, notes


def _labels(path: Path, key: str, arrays: dict[str, np.ndarray], count: int) -> np.ndarray | None:
    """One label for each image under ``key``, or several, if there are any."""
    y = arrays.get(_labels_of(key))
    if y is None:
        return None
    if y.ndim == 2 and len(y) == count and y.shape[1] > 1 and y.dtype.kind in "biuf":
        several = np.nan_to_num(y, nan=-1)
        if np.isin(several, (-1, 0, 1)).all():
            return several
    if y.size != count or y.dtype.kind not in "biufSU":
        raise UserError(
            f"{path}: {_labels_of(key)} must be one number or word for each of {count:,} images, or 0 and 1 for each "
            f"of several labels, or give --no-labels; got {y.size:,} of {y.dtype}, {y.shape}"
        )
    return y.reshape(count)
