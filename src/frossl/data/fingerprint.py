"""A fingerprint of images and labels that does not depend on where they lie."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import numpy as np
from torch import Tensor

from frossl.data.threads import in_threads
from frossl.data.types import Dataset, Split

SAMPLED = 200
"""Images of a split that are hashed if they have to be decoded."""


def fingerprint(data: Dataset) -> dict[str, Any]:
    """The number of ``images`` of both splits, and SHA-256 of the names of ``classes``, ``labels`` and ``pixels``.

    Pixels are those of all images in memory, else of :data:`SAMPLED` of each split, evenly spaced, decoded for it.
    """
    splits = data.train, data.test
    labels = (b"" if split.labels is None else split.labels.numpy().tobytes() for split in splits)
    return {
        "images": [len(split) for split in splits],
        "classes": _digest(name.encode(errors="replace") + b"\0" for name in data.classes),
        "labels": _digest(labels),
        "pixels": _digest(part for split in splits for part in _pixels(split)),
    }


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The differences of two fingerprints, as phrases."""
    changed = [key for key in then if then[key] != now.get(key)]
    return [f"images were {then[key]}, are {now.get(key)}" if key == "images" else f"other {key}" for key in changed]


def _pixels(split: Split) -> Iterable[bytes]:
    images = split.images
    if isinstance(images, Tensor):
        yield from (_bytes(part) for part in images.split(1024))
        return
    chosen = np.linspace(0, len(images) - 1, min(len(images), SAMPLED)).astype(int)
    yield from in_threads(lambda i: _bytes(images[int(chosen[i])]), len(chosen), None)


def _bytes(x: Tensor) -> bytes:
    """Shape and values of ``(..., C, H, W)`` with channels last, as most images lie in memory."""
    return f"{tuple(x.shape)}".encode() + x.movedim(-3, -1).contiguous().numpy().tobytes()


def _digest(parts: Iterable[bytes]) -> str:
    hashed = sha256()
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()
