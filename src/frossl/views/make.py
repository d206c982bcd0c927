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

from frossl.core.axes import fold
from frossl.core.types import UserError
from frossl.views import ops
from frossl.views.colour import Colour, find_colour
from frossl.views.on_device import CropFn, allocate, cut, make_on_device, rows_of
from frossl.views.params import ViewParams
from frossl.views.recipes import Recipe, View

BLOCK_BYTES = 2**22
"""Float pixels that are worked on at once on the CPU: as many as stay in the caches."""


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
    if images_NCHW.device.type == "cpu":
        images = images_NCHW.contiguous(memory_format=torch.channels_last)
        crops = [partial(_crop_each, images, group, d.map(fold)) for group, d in zip(recipe, params, strict=True)]
    else:
        crops = [cut(images_NCHW, group) for group in recipe]
    return _finish(crops, recipe, params, mean, std, images_NCHW, compiled, dtype)


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
    return _finish([rows_of(x) for x in crops], recipe, params, mean, std, crops[0][0], compiled, dtype)


def _finish(
    crops: Sequence[CropFn],
    recipe: Recipe,
    params: Sequence[ViewParams],
    mean: Sequence[float],
    std: Sequence[float],
    like_NCHW: Tensor,
    compiled: bool,
    dtype: torch.dtype,
) -> list[Tensor]:
    """Views from crops that are made block by block; ``like_NCHW`` has their channels and their device."""
    channels, device = like_NCHW.shape[1], like_NCHW.device
    if not len(mean) == len(std) == channels:
        raise UserError(f"views of {channels} channels need as many means and deviations; got {len(mean)}, {len(std)}")
    if device.type != "cpu":
        return make_on_device(crops, recipe, params, mean, std, device, compiled, dtype)
    return _apply_photometric(crops, recipe, params, mean, std, compiled, dtype)


def crop_one(image_CHW: Tensor, group: View, params: ViewParams) -> Tensor:
    """``(V, C, S, S)`` uint8 crops of one uint8 image of any size, for the workers that decode; N = 1 in ``params``."""
    return _crop_each(image_CHW[None], group, params.map(fold), 0, group.count)


def _crop_each(images_NCHW: Tensor, group: View, params: ViewParams, start: int, stop: int, _: object = None) -> Tensor:
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


def _apply_photometric(
    crops: Sequence[CropFn],
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
    made, rows = allocate(recipe, params[0].top.shape[1], channels, dtype=dtype)
    blocks: list[Callable[[], None]] = []

    def fill(crops: CropFn, start: int, stop: int, group: View, params: ViewParams, out: Tensor) -> None:
        x = crops(start, stop, {}).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        _photometric(x, group, params, colour)
        out.copy_(x.mul_(scale).add_(shift).contiguous(memory_format=torch.channels_last))

    for crops_of, group, d, out in zip(crops, recipe, params, rows, strict=True):
        flat = d.map(fold)
        block = max(1, min(BLOCK_BYTES // (4 * channels * group.size**2), -(-len(out) // threads)))
        for start in range(0, len(out), block):
            stop = min(start + block, len(out))
            part = flat.map(lambda t, a=start, b=stop: t[a:b])
            blocks.append(partial(fill, crops_of, start, stop, group, part, out[start:stop]))
    _each(blocks, threads)
    return made


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
