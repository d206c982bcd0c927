"""How every image of a data set becomes uint8: the same for all, so that equal values stay equal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Reading:
    """What is decided once for a data set.

    ``range``: the intensities that become 0 and 255, a pair for all channels or one for each, of images that are
    ``deep``, of more than 8 bits, while others stay as they are; or else of all. ``extra``: the last of 2 or 4 samples
    is a channel, else transparency. ``pages``: so many pages of a file are channels; 0 if only the first is read.
    ``types``: of the values in all files, where another would be on another scale; any if none is named.
    """

    channels: int
    range: tuple[float, ...] = ()
    deep: bool = True
    extra: bool = False
    pages: int = 0
    types: tuple[str, ...] = ()

    def check(self, dtype: str, pages: int) -> None:
        """Raises ValueError for an image unlike those that were there when this was decided."""
        if self.types and dtype not in self.types:
            raise ValueError(f"values of {dtype}, where others are of {' and '.join(self.types)}")
        if self.pages and pages != self.pages:
            raise ValueError(f"{pages} pages, where others have {self.pages}")

    def to_bytes(self, values_HWC: np.ndarray) -> np.ndarray:
        """Intensities of any type as uint8; what is not a number becomes 0, infinity the end it is nearest to."""
        values_HWC = self.used(values_HWC)
        if values_HWC.dtype == np.uint8 and (self.deep or not self.range):
            return values_HWC
        if not self.range:
            raise ValueError(f"values of {values_HWC.dtype}, where all had 8 bits when the data was opened")
        exact = np.float32 if values_HWC.dtype.itemsize <= 2 else np.float64
        low, high = np.array(self.range[::2]), np.array(self.range[1::2])
        x = (values_HWC.astype(exact) - low.astype(exact)) * (255 / (high - low)).astype(exact)
        return np.rint(np.nan_to_num(x.clip(0, 255), nan=0)).astype(np.uint8)

    def to_tensor(self, images_NHWC: np.ndarray) -> Tensor:
        """Images of any type as uint8 ``(N, C, H, W)``."""
        x = np.empty((*images_NHWC.shape[:3], self.channels), np.uint8)
        for start in range(0, len(x), 256):  # less memory for what is between
            x[start : start + 256] = with_channels(self.to_bytes(images_NHWC[start : start + 256]), self.channels)
        return torch.from_numpy(x).permute(0, 3, 1, 2)

    def used(self, values_C: np.ndarray) -> np.ndarray:
        """The channels that are read of those there are, the last axis; colour that becomes grey is read whole."""
        grey = (values_C.shape[-1], self.channels) == (3, 1)
        return values_C if grey else values_C[..., : self.channels]


def with_channels(x_HWC: np.ndarray, channels: int) -> np.ndarray:
    """The last axis of bytes with so many: grey as colour, colour as grey, else the first."""
    change = (x_HWC.shape[-1], channels)
    if change == (1, 3):
        return x_HWC.repeat(3, -1)
    if change == (3, 1):
        return np.rint(x_HWC @ LUMA).astype(np.uint8)[..., None]
    return x_HWC[..., :channels]
