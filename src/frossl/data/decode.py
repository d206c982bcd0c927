"""From an encoded image to uint8 pixels, in one way for files and for bytes.

The first frame of an animation; EXIF orientation applied; transparency laid over white; 16-bit grey divided
by 257, so that full range stays full range; float pixels read as [0, 1] when none exceeds 1, else as [0, 255].
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile
from torch import Tensor

from frossl.data.formats import open_image

GREY_16 = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
GREY = frozenset({"1", "L", "LA", "La", "F"}) | GREY_16
COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})

ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's readers raise on damaged input.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, RuntimeError)
BROKEN = (*BROKEN, struct.error, zlib.error, Image.DecompressionBombError)


class UnreadableError(ValueError):
    """An encoded image that cannot be decoded; the message is the reason."""


class Probe(NamedTuple):
    """What the start-up scan keeps of an image: its upright ``(H, W)`` and whether it has no colour."""

    size: tuple[int, int]
    grey: bool


@contextmanager
def _opened(encoded: str | bytes, max_pixels: int | None) -> Iterator[Image.Image]:
    try:
        # Pillow maps files that it opens by name, and mixes up the pixels of TIFFs that lie on their side.
        with (
            BytesIO(encoded) if isinstance(encoded, bytes) else open(encoded, "rb") as file,
            open_image(file, max_pixels) as image,
        ):
            if image.mode not in GREY | COLOUR:
                raise UnreadableError(f"colour mode {image.mode} is not supported")
            if isinstance(image, JpegImageFile):
                _check_end(image)
            if isinstance(image, PngImageFile) and "transparency" in image.info:
                _fit_transparency(image)
            yield image
    except UnidentifiedImageError as error:
        raise UnreadableError(str(error)) from None
    except BROKEN as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UnreadableError(reason or str(error) or type(error).__name__) from error


def _check_end(image: JpegImageFile) -> None:
    """A JPEG whose end was never written, as of a download into a file of full size, may decode without complaint."""
    assert image.fp is not None
    place = image.fp.tell()  # where the pixels begin; thumbnails with an end of their own lie before
    if b"\xff\xd9" not in image.fp.read():
        raise UnreadableError("image file is truncated (it has no end marker)")
    image.fp.seek(place)


def _fit_transparency(image: PngImageFile) -> None:
    """Pillow rescales grey of 2 or 4 bits and colour of 16 to 8 bits, but not the value that is transparent."""
    raw, value = image.tile[0].args, image.info["transparency"]
    if raw in ("L;2", "L;4"):
        image.info["transparency"] = value * (85 if raw == "L;2" else 17)
    elif raw == "RGB;16B":
        image.info["transparency"] = tuple(v >> 8 for v in value)


def _orientation(image: Image.Image) -> int:
    """How a loaded image lies, from 1 (upright) to 8; upright where its metadata are damaged, which harms no pixel."""
    try:
        return image.getexif().get(ORIENTATION_TAG, 1)
    except BROKEN:
        return 1


def probe(
    encoded: str | bytes, room: int = 0, channels: int | None = None, max_pixels: int | None = None
) -> tuple[Probe, Tensor | None]:
    """Read a path or bytes to the end; raise :class:`UnreadableError` if damaged or of more than ``max_pixels``.

    An image of at most ``room`` pixels comes decoded as well, to ``channels`` or, by default, to one if it is grey;
    of others a JPEG is read at an eighth of its size.
    """
    with _opened(encoded, max_pixels) as image:
        width, height = image.size
        small = width * height <= room
        if not small:
            image.draft(image.mode, (1, 1))
        image.load()
        grey = image.mode in GREY
        lying = _orientation(image) in (5, 6, 7, 8)
        pixels = _pixels(image, channels or (1 if grey else 3)) if small else None
        return Probe((width, height) if lying else (height, width), grey), pixels


def decode(encoded: str | bytes, channels: int, least: int = 0, max_pixels: int | None = None) -> Tensor:
    """A path or bytes to uint8 ``(C, H, W)`` with C = 1 or 3; raise :class:`UnreadableError` as :func:`probe` does.

    With ``least``, a JPEG comes at a half, a quarter or an eighth of its size, as long as its shorter side keeps that
    many pixels: its decoder leaves out the finest frequencies, which costs far less than to decode and shrink.
    """
    with _opened(encoded, max_pixels) as image:
        if least:
            share = min(1.0, least / min(image.size))
            image.draft(image.mode, (math.ceil(image.width * share), math.ceil(image.height * share)))
        image.load()
        return _pixels(image, channels)


def _pixels(image: Image.Image, channels: int) -> Tensor:
    """A loaded image, upright and in eight bits, as ``(C, H, W)``."""
    turn = UPRIGHT.get(_orientation(image))
    upright = _eight_bit(image if turn is None else image.transpose(turn))
    mode = "L" if channels == 1 else "RGB"
    pixels = np.array(upright if upright.mode == mode else upright.convert(mode))
    return torch.from_numpy(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode in GREY_16:
        values = np.asarray(image).clip(0, 65535)
        if isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0:
            values = 65535 - values  # white is zero, which Pillow heeds in eight bits alone
        grey = np.rint(values / 257).astype(np.uint8)
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255
        return Image.fromarray(grey)
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image))
        scale = 255 if values.max() <= 1 else 1
        return Image.fromarray(np.rint((values * scale).clip(0, 255)).astype(np.uint8))
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image
