"""From uint8 images and drawn parameters to normalised views.

On the CPU every view is resampled by itself in uint8, and all else goes over blocks of views that stay in the caches, a
block to a thread; on other devices everything is batched (:mod:`frossl.views.on_device`). All views of a group see the
same operations in the same order either way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from frossl.core.axes import fold, unfold
from frossl.core.types import UserError
from frossl.views import ops
from frossl.views.colour import Colour, find_colour
from frossl.views.on_device import cut, make_on_device, pack, rows_of
from frossl.views.params import ViewParams
from frossl.views.recipes import Recipe, View

BLOCK_BYTES = 2**22
"""Float pixels that are worked on at once on the CPU: as many as stay in the caches."""

CropFn = Callable[[int, int], Tensor]
"""Crops of the views from one place to another of ``(V * N)``, as ``(B, C, S, S)`` in [0, 255]."""


def render_views(
    images_NCHW: Tensor,
    recipe: Recipe,
    params: Sequence[ViewParams],
    mean: Sequence[float],
    std: Sequence[float],
    compiled: bool = False,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """Views of uint8 images of one size: a tensor ``(V, N, C, S, S)``, channels last, for each resolution S in order.

    On the CPU blocks of views are made in as many threads as torch uses; their number changes no bit. ``compiled``
    makes colours in one kernel, with other rounding.
    """
    _check(images_NCHW.shape[1], mean, std)
    if images_NCHW.device.type != "cpu":
        sources = [cut(images_NCHW, group) for group in recipe]
        return make_on_device(sources, recipe, params, mean, std, images_NCHW.device, compiled, dtype)
    source = images_NCHW.contiguous(memory_format=torch.channels_last)
    takes = [partial(_crop_each, source, group, d.map(fold)) for group, d in zip(recipe, params, strict=True)]
    return _apply_photometric(takes, recipe, params, mean, std, compiled, dtype)


def finish_views(
    crops: Sequence[Tensor],
    recipe: Recipe,
    params: Sequence[ViewParams],
    mean: Sequence[float],
    std: Sequence[float],
    compiled: bool = False,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """The photometric part and the normalisation of uint8 ``(V, N, C, S, S)`` crops, merged by resolution."""
    _check(crops[0].shape[2], mean, std)
    if crops[0].device.type != "cpu":
        sources = [rows_of(x) for x in crops]
        return make_on_device(sources, recipe, params, mean, std, crops[0].device, compiled, dtype)
    return _apply_photometric([partial(_rows, fold(x)) for x in crops], recipe, params, mean, std, compiled, dtype)


def crop_one(image_CHW: Tensor, group: View, params: ViewParams) -> Tensor:
    """``(V, C, S, S)`` uint8 crops of one uint8 image of any size, for the workers that decode; N = 1 in ``params``."""
    return _crop_each(image_CHW[None], group, params.map(fold), 0, group.count)


def crop(images_NCHW: Tensor, group: View, params: ViewParams) -> Tensor:
    """``(V, N, C, S, S)`` resized, mirrored crops of float images in [0, 255], as accelerators make them."""
    packed, columns = pack(params.map(fold), [0.0], [1.0])
    parts = {name: packed[:, at].squeeze(1) for name, at in columns.items()}
    return unfold(cut(images_NCHW, group)(0, len(packed), parts), group.count)


def _rows(x_BCSS: Tensor, start: int, stop: int) -> Tensor:
    return x_BCSS[start:stop]


def _crop_each(images_NCHW: Tensor, group: View, params: ViewParams, start: int, stop: int) -> Tensor:
    """Crops by torchvision's resampling in uint8, one view after the other; ``params`` is folded."""
    boxes = torch.stack([params.top, params.left, params.height, params.width], 1)[start:stop].long().tolist()
    n = len(images_NCHW)
    resize = partial(
        F.interpolate, size=(group.size, group.size), mode=group.interpolation, antialias=True, align_corners=False
    )
    crops = torch.cat(
        [
            resize(images_NCHW[i % n : i % n + 1, :, top : top + height, left : left + width])
            for i, (top, left, height, width) in enumerate(boxes, start)
        ]
    )
    _apply(crops, params.flip[start:stop], lambda chosen, _: chosen.flip(-1))
    _apply(crops, params.vertical[start:stop], lambda chosen, _: chosen.flip(-2))
    return crops


def _check(channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
    if not len(mean) == len(std) == channels:
        raise UserError(f"views of {channels} channels need as many means and deviations; got {len(mean)}, {len(std)}")


def _apply_photometric(
    takes: Sequence[CropFn],
    recipe: Recipe,
    params: Sequence[ViewParams],
    mean: Sequence[float],
    std: Sequence[float],
    compiled: bool,
    dtype: torch.dtype,
) -> list[Tensor]:
    channels, colour = len(mean), find_colour(compiled, len(mean))
    scale = 1 / torch.tensor(std)[:, None, None]
    shift = -torch.tensor(mean)[:, None, None] * scale
    threads = torch.get_num_threads()
    images = params[0].top.shape[1]
    sizes = list(dict.fromkeys(group.size for group in recipe))
    views = {s: sum(group.count for group in recipe if group.size == s) for s in sizes}
    made = {
        s: torch.empty((views[s] * images, channels, s, s), dtype=dtype, memory_format=torch.channels_last)
        for s in sizes
    }
    free = dict(made)
    blocks: list[Callable[[], None]] = []

    def fill(take: CropFn, start: int, stop: int, group: View, params: ViewParams, out: Tensor) -> None:
        x = take(start, stop).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        _photometric(x, group, params, colour)
        out.copy_(x.mul_(scale).add_(shift).contiguous(memory_format=torch.channels_last))

    for take, group, d in zip(takes, recipe, params, strict=True):
        total, flat = group.count * images, d.map(fold)
        out, free[group.size] = free[group.size].tensor_split([total])
        block = max(1, min(BLOCK_BYTES // (4 * channels * group.size**2), -(-total // threads)))
        for start in range(0, total, block):
            stop = min(start + block, total)
            part = flat.map(lambda t, a=start, b=stop: t[a:b])
            blocks.append(partial(fill, take, start, stop, group, part, out[start:stop]))
    _each(blocks, threads)
    return [unfold(made[s], views[s]) for s in sizes]


def _each(blocks: Sequence[Callable[[], None]], threads: int) -> None:
    """Does all ``blocks``, each in one thread, as most of their operations are too small to be shared out."""
    if threads == 1:
        for block in blocks:
            block()
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for done in [pool.submit(block) for block in blocks]:
                done.result()
    finally:
        torch.set_num_threads(threads)  # what any thread sets holds for all that begin later


def _photometric(x_BCSS: Tensor, group: View, params: ViewParams, colour: Colour) -> None:
    """Colour, blur and solarize, in place; ``params`` is that of these samples."""
    colour(x_BCSS, params)
    radius = math.ceil(3 * group.blur_sigma[1])
    _apply(x_BCSS, params.blur, lambda chosen, i: ops.gaussian_blur(chosen, params.sigma[i], radius))
    _apply(x_BCSS, params.solarize, lambda chosen, _: ops.solarize(chosen, group.solarize_threshold))


def _apply(x: Tensor, where_B: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``change`` the samples that drew it, in place."""
    chosen = where_B.nonzero()[:, 0]
    if len(chosen):
        x[chosen] = change(x[chosen], chosen)
