"""Images as small data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image, ImageOps
from torch import Tensor

SIDE = 80
"""Most pixels on a side of a thumbnail."""
CELL = 32
"""Pixels on a side of a picture in a sheet."""


def thumbnail(image_CHW: Tensor, side: int = SIDE) -> str:
    """A uint8 image with its longer side at most ``side`` pixels: PNG if it is that already, else JPEG."""
    picture = to_pil(image_CHW)
    if max(picture.size) <= side:
        return to_uri(picture, "png")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return to_uri(picture, "jpeg")


def sheet(images: Sequence[Tensor], across: int, cell: int = CELL, quality: int = 82) -> str:
    """One square JPEG with the centre squares of images, row by row, ``across`` in a row and in a column."""
    mode = "L" if all(len(x) != 3 for x in images) else "RGB"
    whole = Image.new(mode, (across * cell, across * cell))
    for i, image in enumerate(images):
        square = ImageOps.fit(to_pil(image), (cell, cell), Image.Resampling.BICUBIC)
        whole.paste(square, (i % across * cell, i // across * cell))
    return to_uri(whole, "jpeg", quality)


def shown(image_CHW: Tensor) -> Tensor:
    """The visible channels: three as colour; of other numbers the first, as grey."""
    return image_CHW if len(image_CHW) == 3 else image_CHW[:1]


def to_pil(image_CHW: Tensor) -> Image.Image:
    """The :func:`shown` channels of a uint8 image."""
    array = shown(image_CHW).cpu().numpy()
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


def to_uri(picture: Image.Image, kind: str, quality: int = 82) -> str:
    """A picture as a data URI: ``png``, or ``jpeg`` of a ``quality``."""
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": quality} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
