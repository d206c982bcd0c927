"""Images that Pillow would read in part or too coarsely: TIFF by tifffile, 16-bit colours by imagecodecs."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from frossl.data.formats import check_pixels, open_image

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG, JPEG2000, SIZE_MARKER = b"\x89PNG", (b"\0\0\0\x0c", b"\xff\x4f\xff\x51"), b"\xff\x4f\xff\x51"
DEPTH, PHOTOMETRIC, ORIENTATION, SAMPLES, FORMAT, NODATA = 258, 262, 274, 277, 339, 42113
PLAIN = {(16, 1), (16, 2), (32, 2), (32, 3)}
"""Bits and sample format (1 unsigned, 2 signed, 3 float) of grey of more than 8 bits that Pillow reads to the last."""
FLIPS = {2: (0, -1, 1), 3: (0, -1, -1), 4: (0, 1, -1), 5: (1, 1, 1), 6: (1, -1, 1), 7: (1, -1, -1), 8: (1, 1, -1)}
"""Orientations of TIFF: whether rows and columns change places, then the directions of columns and rows."""


class Samples(NamedTuple):
    """All samples of one image ``(H, W, C)``, upright.

    ``dtype`` is that of the file, ``samples`` those of one page. ``extra``: the last of 2 or 4 may be transparency.
    ``stack``: pages are slices or times, as the file says, or of several sizes.
    """

    values_HWC: np.ndarray
    dtype: str
    samples: int
    pages: int = 1
    extra: bool = False
    stack: bool = False


def open_samples(file: IO[bytes], all_pages: bool, max_pixels: int | None) -> Samples | None:
    """All samples of an image, of its first page if not of ``all_pages``; None where Pillow is right.

    Raises:
        ValueError: the package that reads it is not installed.
        Exception: whatever damaged files do to readers.
    """
    head = file.read(4)
    file.seek(0)
    if head in TIFF:
        return None if _plain_tiff(file) else _read_tiff(file, all_pages, max_pixels)
    decoder = _decoder(file)
    file.seek(0)
    if decoder is None:
        return None
    orientation = None
    with suppress(UnidentifiedImageError), open_image(file, max_pixels) as image:  # of more than 4 components
        orientation = image.getexif().get(ORIENTATION)
    file.seek(0)
    values_HWC = upright(getattr(_package("imagecodecs"), decoder)(file.read()), orientation)
    return Samples(values_HWC, values_HWC.dtype.name, values_HWC.shape[2], extra=values_HWC.shape[2] in (2, 4))


def _plain_tiff(file: IO[bytes]) -> bool:
    """Whether a TIFF has one page that Pillow reads as it is."""
    try:
        with TiffImageFile(file) as image:
            tags: Any = image.tag_v2
            kind, samples, bits = tags.get(FORMAT, (1,))[0], tags.get(SAMPLES, 1), max(tags.get(DEPTH, (1,)))
            whole = len(image.getbands()) == samples  # Pillow leaves out a fourth that is called unspecified
            # Of big-endian ones Pillow swaps the bytes once too often where they are compressed.
            deep = samples == 1 and (bits, kind) in PLAIN and tags.prefix == b"II"
            plain = deep if bits > 8 else whole and kind == 1
            return plain and getattr(image, "n_frames", 1) == 1
    except (OSError, SyntaxError, ValueError, KeyError):
        return False
    finally:
        file.seek(0)


def _read_tiff(file: IO[bytes], all_pages: bool, max_pixels: int | None) -> Samples:
    with _package("tifffile").TiffFile(file, _multifile=False) as tiff:
        series, page = tiff.series[0], tiff.pages[0]
        pages = math.prod(n for n, axis in zip(series.shape, series.axes, strict=True) if axis not in "YXS")
        others = [one for one in tiff.series[1:] if not (one.keyframe.is_reduced or one.keyframe.is_mask)]
        together = all_pages and pages > 1
        check_pixels(page.imagewidth * page.imagelength * (pages if together else 1), max_pixels)
        values, axes = (series.asarray(), series.axes) if together else (page.asarray(), page.axes)
        values = np.moveaxis(values, (axes.index("Y"), axes.index("X")), (0, 1))
        values_HWC, samples = values.reshape(*values.shape[:2], -1), page.samplesperpixel
        kind = page.photometric.name
        if kind in ("SEPARATED", "CIELAB", "YCBCR") and page.compression.name != "JPEG":
            raise ValueError(f"TIFF of several pages, or of more than 8 bits, in {kind} is not supported")
        if kind == "PALETTE":
            samples, palette = 3, (page.colormap.T >> 8).astype(np.uint8)
            values_HWC = palette[values_HWC].reshape(*values.shape[:2], -1)
        elif page.bitspersample < 8:
            values_HWC = (values_HWC * (255 // (2**page.bitspersample - 1))).astype(np.uint8)
        if values_HWC.dtype.kind not in "uif":
            raise ValueError(f"values of {values_HWC.dtype} are not supported")
        if kind == "MINISWHITE" and values_HWC.dtype.kind == "u":
            values_HWC = np.iinfo(values_HWC.dtype).max - values_HWC
        extra = values_HWC.shape[2] in (2, 4) and samples in (2, 4)
        nodata, orientation = (page.tags.valueof(tag) for tag in (NODATA, ORIENTATION))
    return Samples(
        upright(values_HWC if extra else without_nodata(values_HWC, nodata), orientation),
        values_HWC.dtype.name,
        samples,
        pages=pages + sum(len(one.pages) for one in others),
        extra=extra,
        stack=bool(others) or any(axis in "ZT" for axis in series.axes),
    )


def without_nodata(values_HWC: np.ndarray, nodata: str | None) -> np.ndarray:
    """``values_HWC`` with NaN for what GDAL's tag says is no datum; bytes stay bytes."""
    if nodata is None or values_HWC.dtype == np.uint8:
        return values_HWC
    missing = values_HWC == float(nodata)
    if not missing.any():
        return values_HWC
    return np.where(missing, np.nan, values_HWC.astype(np.float32 if values_HWC.dtype.itemsize <= 2 else np.float64))


def upright(values_HWC: np.ndarray, orientation: int | None) -> np.ndarray:
    """An image that lies as EXIF or TIFF says, turned."""
    if orientation not in FLIPS:
        return values_HWC
    transposed, columns, rows = FLIPS[orientation]
    return (values_HWC.swapaxes(0, 1) if transposed else values_HWC)[::rows, ::columns]


def _decoder(file: IO[bytes]) -> str | None:
    """The function of imagecodecs for colours that Pillow would cut down to 8 bits; None of other images."""
    head = file.read(26)  # of a PNG: signature, length and kind of the header chunk, width, height, depth, colour type
    if head.startswith(PNG):
        return "png_decode" if head[24:25] == b"\x10" and head[25] in (2, 4, 6) else None
    if head[:4] not in JPEG2000:
        return None
    content = head + file.read()
    place = content.find(SIZE_MARKER) + len(SIZE_MARKER) + 36  # of the number of components, then come their bits
    components = int.from_bytes(content[place : place + 2], "big")
    bits = 1 + int.from_bytes(content[place + 2 : place + 3], "big")
    return "jpeg2k_decode" if components > 4 or (components > 1 and bits > 8) else None


def _package(name: str) -> Any:
    try:
        return __import__(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"it needs the package {error.name}: pip install 'frossl[tiff]'") from None
