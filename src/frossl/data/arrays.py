"""Images in arrays, of any number of channels: tensors in Python, or a file of NumPy."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from lzma import LZMAError
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from frossl.core.types import UserError
from frossl.data.build import hold_out, measure, to_channels
from frossl.data.sources import Options
from frossl.data.types import Dataset, Split

EXTENSIONS = (".npy", ".npz")
# What zipfile, its decompressors and NumPy raise on damaged, encrypted or hostile files.
BROKEN = (
    OSError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    BadZipFile,
    LZMAError,
    struct.error,
    zlib.error,
)
TRAIN, HELD_OUT = ("train_images", "images"), ("test_images", "val_images")


def from_tensors(
    train: Split,
    test: Split | None = None,
    *,
    name: str = "tensors",
    classes: tuple[str, ...] = (),
    held_out: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Uint8 images ``(N, C, H, W)`` of any number C of channels as a data set, for ``pretrain(config, data=...)``.

    Labels are int64 ``(N,)``, numbers of ``classes``, -1 where unknown. Without ``test``, the fraction ``held_out`` of
    the images is chosen by ``seed``. Raises UserError for images or labels that are none of that.
    """
    options, notes = Options(held_out=held_out, seed=seed), ()
    for split in (train, test):
        if split is not None:
            _check(split, classes)
    if test is None:
        if len(train) < 2:
            raise UserError(f"{name}: {len(train)} images, at least 2 are needed (one to train on, one held out)")
        labels = None if train.labels is None else train.labels.numpy()
        places = hold_out(len(train), labels, options)
        train, test = (
            Split(train.images[index], None if train.labels is None else train.labels[index])  # type: ignore[index]
            for index in map(torch.from_numpy, places)
        )
        notes = (f"no held-out images: {len(test):,} held out by seed {seed}",)
    shape, other = train.images[0].shape, test.images[0].shape
    if shape[0] != other[0]:
        raise UserError(f"{name}: training images have {shape[0]} channels, held-out images {other[0]}; give the same")
    mean, std = measure(train.images, options)
    (_, height, width), (_, other_height, other_width) = shape, other
    return Dataset(
        name=name,
        train=train,
        test=test,
        classes=classes,
        channels=shape[0],
        mean=mean,
        std=std,
        smallest=(min(height, other_height), min(width, other_width)),
        largest=(max(height, other_height), max(width, other_width)),
        typical=(height, width),
        source="tensors in memory",
        notes=notes,
    )


def _check(split: Split, classes: tuple[str, ...]) -> None:
    x, y = split.images, split.labels
    if not isinstance(x, Tensor) or x.dtype != torch.uint8 or x.ndim != 4 or not x.numel():
        got = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise UserError(f"images are a uint8 tensor (N, C, H, W) with values from 0 to 255; got {got}")
    if y is None:
        return
    if tuple(y.shape) != (len(x),) or y.dtype != torch.int64:
        raise UserError(f"labels of {len(x):,} images are int64 ({len(x)},); got {tuple(y.shape)} of {y.dtype}")
    if not -1 <= int(y.min()) <= int(y.max()) < len(classes):
        raise UserError(f"labels go from {int(y.min())} to {int(y.max())}, with {len(classes)} names of classes")


def open_arrays(path: Path, options: Options) -> Dataset:
    """A ``.npy`` file of images, or an ``.npz`` file with ``images`` and perhaps ``labels`` (or MedMNIST's names).

    Images are uint8 ``(N, H, W)`` or ``(N, H, W, C)``; labels one number or word for each, -1 or NaN where unknown.
    ``train_images``, ``train_labels``, ``test_images`` and ``test_labels`` bring their own split, or ``val_`` in place
    of ``test_``.
    """
    if options.cache is not None:
        raise UserError(f"{path} holds decoded images already; leave --cache out")
    arrays, names = _arrays(path)
    keys = _used(names)
    if not keys or keys[0] not in TRAIN:
        raise UserError(f"{path} has no array {' or '.join(TRAIN)}, only {', '.join(sorted(names))}. Name it so.")
    images = [_images(path, key, arrays[key], options.channels) for key in keys]
    labels = [_labels(path, _labels_of(key), arrays, len(arrays[key])) for key in keys] if options.labels else []
    given = [y for y in labels if y is not None]
    classes = np.unique(np.concatenate([y[~_unknown(y)] for y in given])) if given else np.array([])
    found = len(given) == len(images) and len(classes) > 0
    numbers = [torch.from_numpy(_numbers(y, classes)) for y in given] if found else [None] * len(images)
    splits = [Split(x, y) for x, y in zip(images, numbers, strict=True)]
    data = from_tensors(
        *splits,
        name=path.stem,
        classes=tuple(str(name) for name in classes) if found else (),
        held_out=options.held_out,
        seed=options.seed,
    )
    said = (
        f"{len(classes)} classes come from the labels"
        if found
        else "no labels: none is known"
        if len(given) == len(images)
        else f"no labels: no array {' and '.join(map(_labels_of, keys))} with one word or number for each image"
    )
    notes = (*data.notes, *([said] if options.labels else []))
    return replace(data, source=f"arrays in {path}", notes=notes)


def _arrays(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of a file that are used, by name, and the names of all."""
    try:
        loaded = np.load(path, mmap_mode="c", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"images": loaded}, ["images"]
        with loaded:
            names = loaded.files
            wanted = [name for key in _used(names) for name in (key, _labels_of(key)) if name in names]
            arrays = {name: loaded[name] for name in wanted}
    except BROKEN as error:
        raise UserError(f"cannot read {path} as arrays of NumPy: {str(error) or type(error).__name__}") from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise UserError(f"cannot read {path} as arrays of NumPy: {name} in it is no .npy file")
    return arrays, names


def _used(names: list[str]) -> list[str]:
    """The name of the training images, then that of the held-out ones, as far as they are there."""
    found = [next((key for key in keys if key in names), None) for keys in (TRAIN, HELD_OUT)]
    return [key for key in found if key is not None]


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


def _labels(path: Path, key: str, arrays: dict[str, np.ndarray], count: int) -> np.ndarray | None:
    """One label for each image, bytes as words, or None."""
    if key not in arrays:
        return None
    if arrays[key].size != count:
        raise UserError(
            f"{path}: {key} has {arrays[key].size:,} entries for {count:,} images; give one each, or --no-labels"
        )
    y = arrays[key].reshape(count)
    if y.dtype.kind not in "biufSU":
        raise UserError(f"{path}: {key} must be numbers or words, one for each image, got {y.dtype}")
    return np.char.decode(y, "utf-8", "replace") if y.dtype.kind == "S" else y


def _unknown(y: np.ndarray) -> np.ndarray:
    return np.isnan(y) | (y == -1) if y.dtype.kind in "if" else np.zeros(len(y), bool)


def _numbers(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The place of each label among the sorted classes, -1 where it is unknown."""
    return np.where(_unknown(y), -1, np.searchsorted(classes, y))
