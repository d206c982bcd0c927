"""Batched image operations with per-sample parameters, each equal to torchvision's for the same parameters.

Images are float ``(B, C, H, W)`` in [0, 1]; every parameter is a tensor ``(B,)``. Resampling and blur are
separable and linear, so both are a pair of batched matrix products with per-sample matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor

GREY_WEIGHTS = (0.2989, 0.587, 0.114)


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


def resized_crop(
    x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: int, mode: str, flip: Tensor
) -> Tensor:
    """Crop, resize with antialias, and flip left-right where ``flip``, as one resampling. Not clamped."""
    rows = resampling_matrix(top, height, x.shape[2], size, mode)
    columns = resampling_matrix(left, width, x.shape[3], size, mode, flip)
    return separable(x, rows, columns)


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
    value, least = x.amax(1), x.amin(1)
    chroma = value - least
    safe = torch.where(chroma > 0, chroma, 1)
    hue6 = torch.where(value == r, (g - b) / safe, torch.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    hue6 = hue6 + 6 * shift[:, None, None]
    # A channel falls below `value` by as much of the chroma as its distance to the hue allows.
    corner = torch.tensor([5.0, 3.0, 1.0], device=x.device, dtype=x.dtype)[:, None, None]
    k = (hue6.unsqueeze(1) + corner) % 6
    return value.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(k, 4 - k).clamp(0, 1)


def grayscale(x: Tensor) -> Tensor:
    """Every channel replaced by the luma."""
    return grey(x).expand_as(x)


def blur_matrix(sigma: Tensor, size: int, radius: int) -> Tensor:
    """``(B, size, size)`` matrices of a Gaussian blur with reflected borders and ``2 * radius + 1`` taps."""
    radius = min(radius, size - 1)
    taps = torch.arange(-radius, radius + 1, device=sigma.device, dtype=torch.float32)
    weight = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
    weight = weight / weight.sum(1, keepdim=True)
    position = torch.arange(size, device=sigma.device)[:, None] + taps.long()
    position = position.abs()
    position = torch.where(position >= size, 2 * (size - 1) - position, position)
    matrix = torch.zeros(len(sigma), size, size, device=sigma.device)
    return matrix.scatter_add_(2, position.expand(len(sigma), -1, -1), weight[:, None].expand(-1, size, -1))


def gaussian_blur(x: Tensor, sigma: Tensor, radius: int) -> Tensor:
    return separable(x, blur_matrix(sigma, x.shape[2], radius), blur_matrix(sigma, x.shape[3], radius))


def solarize(x: Tensor, threshold: float) -> Tensor:
    """Inverts pixels at or above ``threshold`` (of 1)."""
    return torch.where(x >= threshold, 1 - x, x)
