"""From uint8 images and drawn parameters to normalised views."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from frossl.core.axes import fold, unfold
from frossl.core.types import UserError
from frossl.views import ops
from frossl.views.draw import ORDERS, Drawn
from frossl.views.recipes import Recipe, View


def make_views(
    images_NCHW: Tensor, recipe: Recipe, drawn: Sequence[Drawn], mean: Sequence[float], std: Sequence[float]
) -> list[Tensor]:
    """Views of uint8 images of one size: one float tensor ``(V, N, C, S, S)`` for each resolution S, in order."""
    images = images_NCHW.float().div_(255)
    crops = [crop(images, group, d) for group, d in zip(recipe, drawn, strict=True)]
    return finish_views(crops, recipe, drawn, mean, std)


def finish_views(
    crops: Sequence[Tensor],
    recipe: Recipe,
    drawn: Sequence[Drawn],
    mean: Sequence[float],
    std: Sequence[float],
) -> list[Tensor]:
    """The photometric part and the normalisation of ``(V, N, C, S, S)`` crops in [0, 1], merged by resolution.

    The crops are changed in place.
    """
    channels = crops[0].shape[2]
    if not len(mean) == len(std) == channels:
        raise UserError(f"views of {channels} channels need as many means and deviations; got {len(mean)}, {len(std)}")
    by_size: dict[int, list[Tensor]] = {}
    for x, group, d in zip(crops, recipe, drawn, strict=True):
        by_size.setdefault(group.size, []).append(_colour(x, group, d))
    shift = torch.tensor(mean, device=crops[0].device)[:, None, None]
    scale = torch.tensor(std, device=crops[0].device)[:, None, None]
    return [(torch.cat(xs) - shift).div_(scale) for xs in by_size.values()]


def crop(images_NCHW: Tensor, group: View, drawn: Drawn) -> Tensor:
    """``(V, N, C, S, S)`` resized, mirrored crops of float images."""
    height, width = images_NCHW.shape[2:]

    def matrices(start_VN: Tensor, length_VN: Tensor, side: int, flip: Tensor | None = None) -> Tensor:
        start, length = (fold(t).to(images_NCHW.device) for t in (start_VN, length_VN))
        return unfold(ops.resampling_matrix(start, length, side, group.size, group.interpolation, flip), group.count)

    rows = matrices(drawn.top, drawn.height, height)
    columns = matrices(drawn.left, drawn.width, width, fold(drawn.flip).to(images_NCHW.device))
    return torch.stack([ops.separable(images_NCHW, *m) for m in zip(rows, columns, strict=True)]).clamp_(0, 1)


def crop_one(image_CHW: Tensor, group: View, drawn: Drawn) -> Tensor:
    """``(V, C, S, S)`` uint8 crops of one uint8 image of any size, for the workers that decode; N = 1 in ``drawn``."""
    mode = InterpolationMode(group.interpolation)
    crops = []
    for v in range(group.count):
        box = [int(t[v, 0]) for t in (drawn.top, drawn.left, drawn.height, drawn.width)]
        x = tv.resized_crop(image_CHW, *box, size=[group.size, group.size], interpolation=mode, antialias=True)
        crops.append(x.flip(-1) if drawn.flip[v, 0] else x)
    return torch.stack(crops)


def _colour(x_VNCHW: Tensor, group: View, drawn: Drawn) -> Tensor:
    x = fold(x_VNCHW)
    if bool(drawn.jitter.any()):
        _jitter(x, drawn)
    if x.shape[1] == 3:
        _apply(x, drawn.grayscale, lambda chosen, _: ops.grayscale(chosen))
    radius = math.ceil(3 * group.blur_sigma[1])
    sigma = fold(drawn.sigma).to(x.device)
    _apply(x, drawn.blur, lambda chosen, i: ops.gaussian_blur(chosen, sigma[i], radius))
    _apply(x, drawn.solarize, lambda chosen, _: ops.solarize(chosen, group.solarize_threshold))
    return unfold(x, group.count)


def _apply(x: Tensor, where_VN: Tensor, change) -> None:
    """``change`` the samples that drew it, in place."""
    chosen = fold(where_VN).nonzero()[:, 0].to(x.device)
    if len(chosen):
        x[chosen] = change(x[chosen], chosen)


def _jitter(x: Tensor, drawn: Drawn) -> None:
    """Colour jitter in each sample's own order of operations: samples with the same order go together."""
    changes = (ops.adjust_brightness, ops.adjust_contrast, ops.adjust_saturation, ops.adjust_hue)
    factors = fold(drawn.factors).to(x.device)
    for number, order in enumerate(ORDERS):
        chosen = fold(drawn.jitter & (drawn.order == number)).nonzero()[:, 0].to(x.device)
        if len(chosen):
            y = x[chosen]
            for k in order:
                y = changes[k](y, factors[chosen, k])
            x[chosen] = y
