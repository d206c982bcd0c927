"""Batched image operations with per-sample parameters, each equal to torchvision's for the same parameters.

Images are float ``(B, C, H, W)`` in [0, 1]; every parameter is a tensor ``(B,)``. Resampling is separable and linear,
so it is a pair of batched matrix products with per-sample matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

GREY_WEIGHTS = (0.2989, 0.587, 0.114)
COMPLEMENTS = (3.0, 5.0, 1.0)
"""Hues of cyan, magenta and yellow in sixths of the circle."""
TINY = 1e-20
"""Below any difference of two pixels: without colour, a hue is zero and not a division by zero."""


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp_min(0)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5, as PIL and torchvision's antialiased bicubic use."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


FILTERS = {"bilinear": _triangle, "bicubic": _cubic}


def resampling_matrix(
    start: Tensor, length: Tensor, size: int, out: int, mode: str = "bilinear", flip: Tensor | None = None
) -> Tensor:
    """``(B, out, size)`` matrices that resize ``length`` pixels from ``start`` on, of ``size``, to ``out`` pixels.

    Antialiased: when the crop is longer than ``out`` the filter is widened by their ratio. The filter does not
    see beyond the crop. Rows with ``flip`` are mirrored.
    """
    scale = (length / out)[:, None, None]
    row = torch.arange(out, device=start.device, dtype=torch.float32)[:, None] + 0.5
    column = torch.arange(size, device=start.device, dtype=torch.float32) + 0.5
    if flip is not None:
        row = torch.where(flip[:, None, None], out - row, row)
    offset = column - start[:, None, None]
    weight = FILTERS[mode]((offset - row * scale) / scale.clamp_min(1))
    inside = (offset > 0) & (offset < length[:, None, None])
    weight = torch.where(inside, weight, 0)
    return weight / weight.sum(-1, keepdim=True)


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``rows @ x @ columns'`` for every channel: ``(B, C, H, W)`` to ``(B, C, rows, columns)``."""
    return rows[:, None] @ x @ columns[:, None].transpose(2, 3)


def resized_crop(x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: int, mode: str) -> Tensor:
    """Crop and resize with antialias to ``(B, C, size, size)``. Not clamped."""
    rows = resampling_matrix(top, height, x.shape[2], size, mode)
    return separable(x, rows, resampling_matrix(left, width, x.shape[3], size, mode))


def _blend(x: Tensor, other: Tensor | float, factor: Tensor) -> Tensor:
    factor = factor[:, None, None, None].to(x.dtype)
    return (factor * x + (1 - factor) * other).clamp_(0, 1)


def grey(x: Tensor) -> Tensor:
    """Luma ``(B, 1, H, W)`` of RGB; the mean over channels of anything else."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    r, g, b = x.unbind(1)
    return (GREY_WEIGHTS[0] * r + GREY_WEIGHTS[1] * g + GREY_WEIGHTS[2] * b).unsqueeze(1)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor[:, None, None, None]).clamp_(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Away from the mean grey of each image."""
    return _blend(x, grey(x).mean(dim=(1, 2, 3), keepdim=True), factor)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Away from grey; RGB only, anything else is returned as it is."""
    return _blend(x, grey(x), factor) if x.shape[1] == 3 else x


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by ``shift`` of a full circle, through HSV; RGB only, anything else is returned as it is."""
    if x.shape[1] != 3:
        return x
    r, g, b = x.unbind(1)
    value = torch.maximum(torch.maximum(r, g), b)
    chroma = value - torch.minimum(torch.minimum(r, g), b)
    red, green = value == r, value == g
    hue6 = torch.where(red, g - b, torch.where(green, b - r, r - g)).div_(chroma.clamp_min(TINY))
    hue6.add_(torch.where(red, 0.0, torch.where(green, 2.0, 4.0))).add_(6 * shift[:, None, None])
    # A channel loses chroma where the hue is within a third of the circle of its complement, all within a sixth.
    y = torch.empty_like(x)
    for channel, complement in enumerate(COMPLEMENTS):
        away = hue6 - complement
        away.sub_((away / 6).round_().mul_(6)).abs_().neg_().add_(2).clamp_(0, 1)
        torch.addcmul(value, away, chroma, value=-1, out=y[:, channel])
    return y


def grayscale(x: Tensor) -> Tensor:
    """Every channel replaced by the luma."""
    return grey(x).expand_as(x)


def gaussian_blur(x: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Gaussian of ``2 * radius + 1`` taps with reflected borders, down and then across; fewer in a smaller image."""
    for dim in (2, 3):
        size, reach = x.shape[dim], min(radius, x.shape[dim] - 1)
        taps = torch.arange(-reach, reach + 1, device=x.device, dtype=torch.float32)
        weights = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
        weights = (weights / weights.sum(1, keepdim=True)).T[:, :, None, None, None]
        padded = F.pad(x, (0, 0, reach, reach) if dim == 2 else (reach, reach, 0, 0), mode="reflect")
        x = padded.narrow(dim, 0, size) * weights[0]
        for shift in range(1, len(weights)):
            x.addcmul_(padded.narrow(dim, shift, size), weights[shift])
    return x


def solarize(x: Tensor, threshold: float) -> Tensor:
    """Inverts pixels at or above ``threshold`` (of 1)."""
    return torch.where(x >= threshold, 1 - x, x)
