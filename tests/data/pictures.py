"""Images for the tests of this room, made on the spot."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image

from frossl.data.decode import decode
from frossl.data.reading import Reading


def picture(seed: int = 0, size: tuple[int, int] = (12, 16), mode: str = "RGB") -> Image.Image:
    """A smooth random image of size ``(H, W)`` in any mode Pillow converts to."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size[::-1]).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(
    encoded: str | bytes, channels: int, least: int = 0, max_pixels: int | None = None, **reading: Any
) -> torch.Tensor:
    """As the images of a data set of so many channels are."""
    return decode(encoded, Reading(channels, **reading), least, max_pixels)
