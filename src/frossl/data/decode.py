"""From an encoded image, a file or bytes, to uint8 pixels.

The first frame of an animation; EXIF orientation applied; transparency laid over white; the rest as a
:class:`~frossl.data.reading.Reading` says.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from frossl.data.formats import open_image
from frossl.data.reading import Reading, with_channels
from frossl.data.samples import DEPTH, NODATA, PHOTOMETRIC, Samples, open_samples, upright, without_nodata

DEEP = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N", "F"})
GREY = frozenset({"1", "L", "LA", "La"}) | DEEP
COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})

EXTRA = frozenset({"LA", "RGBA", "RGBX"})
"""Modes whose last sample may be transparency or a channel, whatever the file calls it."""
FEW_VALUES = 4
MOVING = frozenset({"GIF", "PNG", "WEBP", "AVIF"})
ORIENTATION_TAG = 0x0112

# What Pillow's readers raise on damaged input.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, RuntimeError)
BROKEN = (*BROKEN, struct.error, zlib.error, MemoryError, Image.DecompressionBombError)


class UnreadableError(ValueError):
    """An encoded image that cannot be decoded; the message is the reason."""


class Probe(NamedTuple):
    """What the start-up scan keeps of an image.

    ``size`` is its upright ``(H, W)``, ``samples`` the number of its colours without one that may be transparency, of
    which ``opaque`` is the share of pixels that are fully opaque or clear, None where there is none. ``pages`` counts
    those of a TIFF, ``stack`` tells that they are slices or times, ``moving`` that this is an animation.
    """

    size: tuple[int, int]
    dtype: str = "uint8"
    samples: int = 1
    opaque: float | None = None
    pages: int = 1
    stack: bool = False
    moving: bool = False

    @property
    def plain(self) -> bool:
        """Whether there is only one way to read it."""
        return self.dtype == "uint8" and self.opaque is None and self.pages == 1


@contextmanager
def _opened(encoded: str | bytes, max_pixels: int | None, pages: bool = True) -> Iterator[Image.Image | Samples]:
    try:
        # Pillow maps files that it opens by name, and mixes up the pixels of TIFFs that lie on their side.
        with BytesIO(encoded) if isinstance(encoded, bytes) else open(encoded, "rb") as file:
            samples = open_samples(file, pages, max_pixels)
            if samples is not None:
                yield samples
                return
            with open_image(file, max_pixels) as image:
                _check(image)
                yield _deep(image) if image.mode in DEEP else image
    except UnidentifiedImageError as error:
        raise UnreadableError(str(error)) from None
    except BROKEN as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UnreadableError(reason or str(error) or type(error).__name__) from error


def _check(image: Image.Image) -> None:
    """Raises :class:`UnreadableError` for what Pillow opens but would not read as it is."""
    if image.mode not in GREY | COLOUR:
        raise UnreadableError(f"colour mode {image.mode} is not supported")
    raw = image.tile[0].args if isinstance(image, PpmImageFile | PngImageFile) and image.tile else ()
    if isinstance(image, PpmImageFile) and image.mode == "RGB" and isinstance(raw, tuple) and raw and raw[1] > 255:
        raise UnreadableError("colour of 16 bits in a PPM is not supported; write PNG or TIFF")
    if isinstance(image, JpegImageFile):
        # A JPEG whose end was never written, as of a download into a file of full size, may decode without complaint.
        assert image.fp is not None
        place = image.fp.tell()  # where the pixels begin; thumbnails with an end of their own lie before
        if b"\xff\xd9" not in image.fp.read():
            raise UnreadableError("image file is truncated (it has no end marker)")
        image.fp.seek(place)
    if isinstance(image, PngImageFile) and (value := image.info.get("transparency")) is not None:
        # Pillow rescales grey of 2 or 4 bits and colour of 16 bits to 8 bits, but not the value that is transparent.
        if raw in ("L;2", "L;4"):
            image.info["transparency"] = value * (85 if raw == "L;2" else 17)
        elif raw == "RGB;16B":
            image.info["transparency"] = tuple(v >> 8 for v in value)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of a loaded image, 1 (upright) to 8; 1 if its metadata are damaged."""
    try:
        return image.getexif().get(ORIENTATION_TAG, 1)
    except BROKEN:
        return 1


def probe(
    encoded: str | bytes,
    room: int = 0,
    channels: int | None = None,
    max_pixels: int | None = None,
    pages: bool = True,
) -> tuple[Probe, Tensor | None]:
    """Read a path or bytes to the end; raise :class:`UnreadableError` if damaged or of more than ``max_pixels``.

    A plain image of at most ``room`` pixels comes decoded as well, to ``channels`` or else to one if it is grey. Of
    others a JPEG is read at an eighth of its size.
    """
    with _opened(encoded, max_pixels, pages) as image:
        if isinstance(image, Samples):
            values = image.values_HWC
            opaque = _opaque(values[..., -1]) if image.extra else None
            samples = image.samples - image.extra
            return Probe(values.shape[:2], image.dtype, samples, opaque, image.pages, image.stack), None
        width, height = image.size
        small = width * height <= room
        if not small:
            image.draft(image.mode, (1, 1))
        image.load()
        size = (width, height) if _orientation(image) in (5, 6, 7, 8) else (height, width)
        opaque = _opaque(np.asarray(image)[..., -1]) if image.mode in EXTRA else None
        moving = image.format in MOVING and image.is_animated  # type: ignore[attr-defined]
        found = Probe(size, samples=1 if image.mode in GREY else 3, opaque=opaque, moving=moving)
        pixels = _pixels(image, Reading(channels or found.samples)) if small and found.plain else None
        return found, pixels


def decode(encoded: str | bytes, reading: Reading, least: int = 0, max_pixels: int | None = None) -> Tensor:
    """A path or bytes to uint8 ``(C, H, W)``; raise :class:`UnreadableError` as :func:`probe` does.

    With ``least``, a JPEG comes at a half, a quarter or an eighth of its size, as long as its shorter side keeps that
    many pixels: its decoder leaves out the finest frequencies, which costs far less than to decode and shrink.
    """
    with _opened(encoded, max_pixels, bool(reading.pages)) as image:
        if isinstance(image, Samples):
            reading.check(image.dtype, image.pages)
            return _tensor(_without_alpha(image, reading), reading.channels)
        if least:
            share = min(1.0, least / min(image.size))
            image.draft(image.mode, (math.ceil(image.width * share), math.ceil(image.height * share)))
        image.load()
        reading.check("uint8", 1)
        return _pixels(image, reading)


def intensities(encoded: str | bytes, reading: Reading, max_pixels: int | None = None) -> np.ndarray:
    """The values ``(H, W, C)`` of an image as they are in the file, without transparency."""
    with _opened(encoded, max_pixels, bool(reading.pages)) as image:
        if isinstance(image, Samples):
            return image.values_HWC[..., : -1 if image.extra and not reading.extra else None]
        image.load()
        return _pixels(image, replace(reading, range=())).permute(1, 2, 0).numpy()


def _opaque(alpha_HW: np.ndarray) -> float:
    """The fraction of pixels that are fully opaque or clear; 1 if alpha has at most four different values."""
    few = len(np.unique(alpha_HW)) <= FEW_VALUES
    return 1.0 if few else float(np.mean((alpha_HW == 0) | (alpha_HW == _top(alpha_HW))))


def _top(alpha: np.ndarray) -> int:
    return np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1


def _without_alpha(image: Samples, reading: Reading) -> np.ndarray:
    """An image as bytes, transparency laid over white."""
    values_HWC = image.values_HWC
    if reading.extra or not image.extra:
        return reading.to_bytes(values_HWC)
    alpha = (values_HWC[..., -1:] / _top(values_HWC)).clip(0, 1)
    return np.rint(reading.to_bytes(values_HWC[..., :-1]) * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _pixels(image: Image.Image, reading: Reading) -> Tensor:
    """A loaded image, upright and in eight bits, as ``(C, H, W)``."""
    if image.mode in EXTRA and reading.extra:
        x = reading.to_bytes(np.array(image))
    else:
        if image.mode in WITH_ALPHA or "transparency" in image.info:
            layer = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        mode = "L" if reading.channels == 1 else "RGB"
        x = np.array(image if image.mode == mode else image.convert(mode))
        x = x if x.ndim == 3 else x[..., None]
        x = reading.to_bytes(x) if reading.range else x
    return _tensor(upright(x, _orientation(image)), reading.channels)


def _tensor(x_HWC: np.ndarray, channels: int) -> Tensor:
    x_CHW = with_channels(x_HWC, channels).transpose(2, 0, 1)
    return torch.from_numpy(x_CHW if min(x_CHW.strides) > 0 else x_CHW.copy())


def _deep(image: Image.Image) -> Samples:
    """An image of more than 8 bits, with NaN for missing data; where one value is transparent, with alpha."""
    values_HWC = np.asarray(image)[..., None]
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if tags.get(DEPTH) == (16,) and image.mode == "I":  # Pillow widens signed 16-bit values
        values_HWC = values_HWC.astype(np.int16)
    dtype, extra = values_HWC.dtype, "transparency" in image.info
    if tags.get(PHOTOMETRIC) == 0 and dtype.kind == "u":  # Pillow inverts white-is-zero images of 8 bits only
        values_HWC = _top(values_HWC) - values_HWC
    values_HWC = without_nodata(values_HWC, tags.get(NODATA))
    if extra:
        alpha_HWC = (values_HWC != image.info["transparency"]) * dtype.type(_top(values_HWC))
        values_HWC = np.concatenate([values_HWC, alpha_HWC], -1)
    return Samples(upright(values_HWC, _orientation(image)), dtype.name, 1 + extra, extra=extra)
