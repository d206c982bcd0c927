"""Which files are images, and opening one with Pillow: in formats that start no program, up to a number of pixels."""

from __future__ import annotations

import math
import os
import re
import struct
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

_COMMON = "jpg jpeg jpe jfif mpo png apng webp tif tiff bmp gif ppm pgm pbm pnm"
_NEWER = "avif avifs jp2 j2k j2c jpc jpf jpx heic heif heics heifs hif"
EXTENSIONS = tuple(f".{name}" for name in f"{_COMMON} {_NEWER}".split())
"""Of files that count as images whatever is in them."""

_TEXT_AND_ARRAYS = "txt csv tsv json jsonl xml yaml yml toml md html log py ipynb npy npz mat pkl pt pth parquet h5 zip"
# TIFFs inside, of which Pillow would read a preview: raw photographs, slides, overviews and masks of GDAL.
_TIFF_INSIDE = "dng nef nrw cr2 arw srf sr2 pef 3fr fff iiq kdc dcr mos mef erf raw svs ndpi scn bif lsm stk ovr msk"
_COPIES = "bak orig tmp part crdownload jpg_original jpeg_original"
NOT_IMAGES = frozenset(f".{name}" for name in f"{_TEXT_AND_ARRAYS} {_TIFF_INSIDE} {_COPIES}".split())
"""Extensions of files that are not looked into."""

_HEIC = re.compile(rb".{4}ftyp(?:he[iv][cxms]|m[is]f1)", re.DOTALL)
_MAGIC = re.compile(
    rb"""\xff\xd8\xff | \x89PNG\r\n\x1a\n | GIF8[79]a | RIFF.{4}WEBP | II[*+]\0 | MM\0[*+] | .{4}ftypavi[fs]
    | \xff\x4f\xff\x51 | \0\0\0\x0cjP\x20\x20\r\n\x87\n | P[1-6]\s+[\d\#]
    | BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3} | """
    + _HEIC.pattern,
    re.DOTALL | re.VERBOSE,
)


def has_image_content(path: str) -> bool:
    """Whether a file begins as one of the formats that are read; False where it cannot be opened."""
    try:
        if not os.path.isfile(path):  # a link to a pipe would wait for what comes out of it
            return False
        with open(path, "rb", buffering=0) as file:
            return _MAGIC.match(file.read(32)) is not None
    except OSError:
        return False


def open_image(file: IO[bytes], max_pixels: int | None = None) -> ImageFile:
    """An image whose pixels are not read yet, as from ``Image.open``, whose limit is one for the whole process.

    Raises:
        UnidentifiedImageError: it has none of the formats that are read, or what reads it is not installed.
        DecompressionBombError: it has more pixels than :func:`pixel_limit`.
    """
    image = _identified(file)
    pixels = image.width * image.height
    check_pixels(pixels, max_pixels)
    if isinstance(image, TiffImageFile) and pixels > _usual_pixels():
        image.im = Image.core.new(image.mode, image._tile_size)  # else Pillow's own limit comes when pixels are read
    return image


def check_pixels(pixels: int, max_pixels: int | None) -> None:
    """Raises DecompressionBombError for an image of more pixels than :func:`pixel_limit`."""
    if pixels > (limit := pixel_limit(max_pixels)):
        raise Image.DecompressionBombError(
            f"{pixels:,} pixels, more than {limit:,}, the limit against decompression bombs. --max-pixels {pixels} "
            "reads it, and --cache SIZE decodes such images once, to a smaller side"
        )


def pixel_limit(max_pixels: int | None) -> float:
    """The most pixels of an image that is read: ``max_pixels`` or twice the number from which on Pillow warns."""
    return max_pixels or 2 * _usual_pixels()


def _usual_pixels() -> float:
    return Image.MAX_IMAGE_PIXELS or math.inf


def note_on_large(sizes_N2: np.ndarray, cache: int | None) -> list[str]:
    """A note where images exceed the number of pixels from which on Pillow warns, else none."""
    usual = _usual_pixels()
    pixels = sizes_N2.prod(1, dtype=np.int64)
    large = pixels[pixels > usual]
    if not len(large):
        return []
    advice = "" if cache else "; --cache SIZE decodes such images once, to a smaller side"
    return [f"images of more than {usual:,} pixels: {len(large):,}, the largest of {large.max():,}{advice}"]


def _identified(file: IO[bytes]) -> ImageFile:
    head, reason = file.read(16), "not an image of a format that is read, or damaged"
    for read, accept in _READERS:
        accepted = accept(head)
        if isinstance(accepted, str):  # Pillow was built without it
            reason = accepted
        elif accepted:
            file.seek(0)
            try:
                return read(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue  # AVIF and HEIC may begin alike
            except Image.DecompressionBombError as error:
                raise Image.DecompressionBombError(f"{error} Its format has no other limit; convert it") from None
    raise UnidentifiedImageError(reason)


def _read_heic(file: IO[bytes], name: str) -> ImageFile:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise UnidentifiedImageError("HEIC needs the package pillow-heif: pip install 'frossl[heic]'") from None
    image = HeifImageFile(file, name)
    image.info.pop("thumbnails", None)  # which draft() would decode in place of the image
    return image


_KINDS = (JpegImageFile, PngImageFile, WebPImageFile, TiffImageFile, BmpImageFile, GifImageFile, PpmImageFile)
_KINDS = (*_KINDS, AvifImageFile, Jpeg2KImageFile)
# Pillow's other readers are left out: that of EPS starts Ghostscript. MPO is read as JPEG.
_READERS: list[tuple[Any, Any]] = [*(Image.OPEN[str(kind.format)] for kind in _KINDS), (_read_heic, _HEIC.match)]
