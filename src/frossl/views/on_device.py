"""Views on accelerators: a few kernels for a whole block, no matter which sample drew what.

All that was drawn for a group travels in one tensor, a row for each view. Operations that only some samples drew are
made for all and chosen afterwards, so that nothing depends on how many they are and the processor waits for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from frossl.core.axes import fold, unfold
from frossl.core.device import upload
from frossl.views import ops
from frossl.views.colour import HUE, Masked, blends, masked_in_one_kernel, masked_jitter
from frossl.views.params import ViewParams
from frossl.views.recipes import Recipe, View

BLOCK_BYTES = 2**28
"""Float pixels that are worked on at once."""

CropFn = Callable[[int, int, dict[str, Tensor]], Tensor]
"""Crops of the views from one place to another of ``(V * N)``, as ``(B, C, S, S)`` in [0, 255]."""


def pack(params: ViewParams, mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, dict[str, slice]]:
    """Parameters of B views, ``params`` folded, as float32 ``(B, K)``, and which columns hold what."""
    scale = 1 / torch.tensor(std)
    drawn = ("top", "left", "height", "width", "vertical", "flip", "jitter", "grayscale", "blur", "sigma", "solarize")
    rows = {
        **{name: getattr(params, name) for name in drawn},
        "hue": params.factors[:, HUE],
        "blends": blends(params, len(mean)).flatten(1),
        "scale": scale.expand(len(params.top), -1),
        "shift": (-torch.tensor(mean) * scale).expand(len(params.top), -1),
    }
    parts = {name: value.float().reshape(len(params.top), -1) for name, value in rows.items()}
    columns, start = {}, 0
    for name, part in parts.items():
        columns[name] = slice(start, start := start + part.shape[1])
    return torch.cat(list(parts.values()), 1), columns


def allocate(recipe: Recipe, images: int, channels: int, **layout: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Empty views ``(V, N, C, S, S)``, channels last, for each resolution S in order, and the rows of each group."""
    views: dict[int, int] = {}
    for group in recipe:
        views[group.size] = views.get(group.size, 0) + group.count
    shapes = {size: (count * images, channels, size, size) for size, count in views.items()}
    made = {s: torch.empty(shape, memory_format=torch.channels_last, **layout) for s, shape in shapes.items()}
    rows, free = [], dict(made)
    for group in recipe:
        out, free[group.size] = free[group.size].tensor_split([group.count * images])
        rows.append(out)
    return [unfold(made[size], count) for size, count in views.items()], rows


def make_on_device(
    sources: Sequence[CropFn],
    recipe: Recipe,
    params: Sequence[ViewParams],
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    compiled: bool,
    dtype: torch.dtype,
) -> list[Tensor]:
    """A tensor ``(V, N, C, S, S)``, channels last, for each resolution S in order, of ``dtype``."""
    colour: Masked = masked_in_one_kernel if compiled and len(mean) == 3 else masked_jitter
    made, rows = allocate(recipe, params[0].top.shape[1], len(mean), device=device, dtype=dtype)
    for source, group, d, out in zip(sources, recipe, params, rows, strict=True):
        packed, columns = pack(d.map(fold), mean, std)
        packed = upload(packed, device)
        block = max(1, BLOCK_BYTES // (4 * len(mean) * group.size**2))
        for start in range(0, len(out), block):
            stop = min(start + block, len(out))
            part = {name: packed[start:stop, at].squeeze(1) for name, at in columns.items()}
            x = source(start, stop, part).to(torch.float32, memory_format=torch.contiguous_format)
            out[start:stop].copy_(_photometric(x / 255, group, part, colour))
    return made


def _photometric(x: Tensor, group: View, part: dict[str, Tensor], colour: Masked) -> Tensor:
    """Colour, blur, solarize and normalisation of ``(B, C, S, S)`` in [0, 1]."""
    blends_B63 = part["blends"].unflatten(1, (6, 3))
    colour(x, blends_B63, part["hue"], part["jitter"] > 0, part["grayscale"] > 0)
    if group.blur:
        blurred = ops.gaussian_blur(x, part["sigma"], math.ceil(3 * group.blur_sigma[1]))
        x = torch.where(part["blur"][:, None, None, None] > 0, blurred, x)
    if group.solarize:
        inverted = ops.solarize(x, group.solarize_threshold)
        x = torch.where(part["solarize"][:, None, None, None] > 0, inverted, x)
    channels = x.shape[1]
    scale, shift = (part[name].reshape(-1, channels, 1, 1) for name in ("scale", "shift"))
    return torch.addcmul(shift, x, scale)


def cut(images_NCHW: Tensor, group: View) -> CropFn:
    """Crops of images as products with resampling matrices, within one and a half grey levels of those on the CPU.

    Matrices of rows and of columns are made together, as for images as high as they are wide.
    """
    (n, _, height, width), side = images_NCHW.shape, max(images_NCHW.shape[2:])

    def crops(start: int, stop: int, part: dict[str, Tensor]) -> Tensor:
        x = images_NCHW[torch.arange(start, stop, device=images_NCHW.device) % n].float()
        begin, length, mirrored = (
            torch.cat([part[of_rows], part[of_columns]])
            for of_rows, of_columns in (("top", "left"), ("height", "width"), ("vertical", "flip"))
        )
        both = ops.resampling_matrix(begin, length, side, group.size, group.interpolation, mirrored > 0)
        rows, columns = both.tensor_split(2)
        return ops.separable(x, rows[..., :height], columns[..., :width]).clamp_(0, 255)

    return crops


def rows_of(crops_VNCSS: Tensor) -> CropFn:
    """Crops that were made already."""
    folded = fold(crops_VNCSS)
    return lambda start, stop, part: folded[start:stop]
