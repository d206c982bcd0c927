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
from frossl.data.build import assemble, hold_out, to_channels
from frossl.data.decode import BROKEN
from frossl.data.options import Opening
from frossl.data.targets import read_labels
from frossl.data.types import Dataset, Split

EXTENSIONS = (".npy", ".npz")
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
    """Uint8 images ``(N, C, H, W)`` of any number C of channels as a data set, for ``pretrain(config, data=...)``.

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
    if y.ndim == 2 and y.shape[1] > 1 and len(y) == len(x) and y.dtype in (torch.bool, torch.int64):
        if not (y.dtype == torch.bool or -1 <= int(y.min()) <= int(y.max()) <= 1) or len(tags) not in (0, y.shape[1]):
            got = f"{y.shape[1]} from {int(y.min())} to {int(y.max())}, with {len(tags)} names"
            raise UserError(f"several labels of an image are 0 or 1 each, or -1 where unknown; got {got}")
        return Split(x, y.long())
    if tuple(y.shape) == (len(x),) and y.is_floating_point():
        if classes or bool(y.isinf().any()):
            got = f"{len(classes)} names of classes" if classes else "an infinite one"
            raise UserError(f"floats as labels are values to predict, finite or NaN where unknown; got {got}")
        return split
    if tuple(y.shape) != (len(x),) or y.dtype != torch.int64:
        raise UserError(f"labels of {len(x):,} images are int64 ({len(x)},); got {tuple(y.shape)} of {y.dtype}")
    if not -1 <= int(y.min()) <= int(y.max()) < len(classes):
        raise UserError(
            f"labels go from {int(y.min())} to {int(y.max())}, with {len(classes)} names of classes; "
            "name all, or give values to predict as floats"
        )
    return split


def open_arrays(path: Path, options: Opening) -> Dataset:
    """A ``.npy`` file of images, or an ``.npz`` file with ``images`` and perhaps ``labels`` (or MedMNIST's names).

    Images are uint8 ``(N, H, W)`` or ``(N, H, W, C)``; labels one number or word for each, -1 or NaN where unknown, or
    0 and 1 for each of K labels, ``(N, K)``.
    ``train_images``, ``train_labels``, ``test_images`` and ``test_labels`` bring their own split, or ``val_`` in place
    of ``test_``.
    """
    if options.cache is not None:
        raise UserError(f"{path} holds decoded images already; leave --cache out")
    arrays = _arrays(path)
    keys = [key for key in arrays if key in (*TRAIN, *HELD_OUT)]
    images = [_images(path, key, arrays[key], options.channels) for key in keys]
    splits, classes, tags, notes = [Split(x) for x in images], (), (), []
    if options.labels:
        given = [y for key in keys if (y := _labels(path, key, arrays)) is not None]
        notes = [f"no labels: no array {' and '.join(map(_labels_of, keys))} with one word or number for each image"]
        if len(given) == len(images):
            read = read_labels(np.concatenate(given).tolist(), targets=options.targets)
            notes = [read.note or "no labels: none is known"]
            parts = torch.from_numpy(read.numbers).split([len(x) for x in images])
            labels, classes, tags = parts if read.note else [None] * len(images), read.classes, read.tags
            splits = [Split(x, y) for x, y in zip(images, labels, strict=True)]
    how = {"name": path.stem, "held_out": options.held_out, "seed": options.seed}
    data = from_tensors(*splits, classes=classes, tags=tags, **how)
    return replace(data, source=f"arrays in {path}", notes=(*data.notes, *notes))


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


def _images(path: Path, key: str, array: np.ndarray, channels: int | None) -> Tensor:
    x = array[..., None] if array.ndim == 3 else array
    if array.ndim == 3 and array.shape[2] in (3, 4) and min(array.shape[:2]) > 4:
        raise UserError(f"{path}: {key} is {array.shape}, one image in colour; give several, as (N, H, W, C)")
    if x.dtype != np.uint8 or x.ndim != 4 or not x.size:
        raise UserError(
            f"{path}: {key} must be uint8 (N, H, W) or (N, H, W, C) with values from 0 to 255, got {array.shape} of "
            f"{array.dtype}. Scale other numbers to that range"
        )
    if x.shape[1] < min(x.shape[2:]) and x.shape[1] <= 16:
        raise UserError(f"{path}: {key} is {array.shape}, channels come last: (N, H, W, C). Use np.moveaxis(x, 1, -1)")
    return to_channels(torch.from_numpy(x).permute(0, 3, 1, 2), channels or x.shape[3])


def _labels(path: Path, key: str, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    """One label for each image under ``key``, or several, if there are any."""
    y, count = arrays.get(_labels_of(key)), len(arrays[key])
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
