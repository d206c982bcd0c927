"""Drawing the parameters of views: every number is a function of (seed, epoch, sample index, view)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from frossl.core.random import uniforms
from frossl.views.recipes import Recipe, View

ORDERS = tuple(permutations(range(4)))  # of brightness, contrast, saturation, hue
_TRIES = 10
_DRAWS = 2 * _TRIES + 14


@dataclass(frozen=True)
class ViewParams:
    """What was drawn for ``(V, N)`` views of one group; crops in whole pixels as torchvision's."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor
    jitter: Tensor
    order: Tensor  # index into ORDERS
    factors: Tensor  # (V, N, 4): brightness, contrast, saturation, hue
    grayscale: Tensor
    blur: Tensor
    sigma: Tensor
    solarize: Tensor
    vertical: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> ViewParams:
        """``change`` done to every field."""
        return ViewParams(*(change(getattr(self, field.name)) for field in fields(self)))


def sample_params(
    recipe: Recipe, *, seed: int, epoch: int, index_N: Tensor, height: Tensor | int, width: Tensor | int
) -> list[ViewParams]:
    """Parameters for every group of ``recipe`` for the samples ``index_N`` of ``height`` x ``width`` pixels.

    Distributions as torchvision's RandomResizedCrop (ten tries, then the largest centred crop within the
    ratio bounds), ColorJitter and GaussianBlur.
    """
    index = index_N.cpu().numpy().astype(np.uint64)
    sizes = (
        np.broadcast_to(np.asarray(height, np.float64), index.shape),
        np.broadcast_to(np.asarray(width, np.float64), index.shape),
    )
    params, first = [], 0
    for group in recipe:
        view = np.arange(first, first + group.count)[:, None]
        u = uniforms(_DRAWS, seed, epoch, index[None, :], view)
        params.append(_draw_group(group, u, *sizes))
        first += group.count
    return params


def _draw_group(group: View, u: np.ndarray, height: np.ndarray, width: np.ndarray) -> ViewParams:
    def between(low: float, high: float, x: np.ndarray) -> np.ndarray:
        return low + (high - low) * x

    # Crops: tries are the last axis; the first that fits wins.
    area = height[:, None] * width[:, None] * between(*group.scale, u[..., :_TRIES])
    ratio = np.exp(between(math.log(group.ratio[0]), math.log(group.ratio[1]), u[..., _TRIES : 2 * _TRIES]))
    tried_w, tried_h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (tried_w >= 1) & (tried_h >= 1) & (tried_w <= width[:, None]) & (tried_h <= height[:, None])
    choice = fits.argmax(-1)[..., None]
    low, high = group.ratio
    whole_w = np.where(width > high * height, np.rint(height * high), width)
    whole_h = np.where(width < low * height, np.rint(width / low), height)
    any_fits = fits.any(-1)
    crop_w = np.where(any_fits, np.take_along_axis(tried_w, choice, -1)[..., 0], np.maximum(whole_w, 1))
    crop_h = np.where(any_fits, np.take_along_axis(tried_h, choice, -1)[..., 0], np.maximum(whole_h, 1))
    u = u[..., 2 * _TRIES :]
    top = np.where(any_fits, np.floor(u[..., 0] * (height - crop_h + 1)), (height - crop_h) // 2)
    left = np.where(any_fits, np.floor(u[..., 1] * (width - crop_w + 1)), (width - crop_w) // 2)

    jitters = (group.brightness, group.contrast, group.saturation)
    factors = [between(max(0.0, 1 - a), 1 + a, u[..., 4 + i]) for i, a in enumerate(jitters)]
    factors.append(between(-group.hue, group.hue, u[..., 7]))
    real = {
        **{"top": top, "left": left, "height": crop_h, "width": crop_w},
        **{"factors": np.stack(factors, -1), "sigma": between(*group.blur_sigma, u[..., 11])},
    }
    chances = {"flip": 2, "jitter": 3, "grayscale": 9, "blur": 10, "solarize": 12, "vertical": 13}
    return ViewParams(
        **{name: torch.from_numpy(x.astype(np.float32)) for name, x in real.items()},
        **{name: torch.from_numpy(u[..., column] < getattr(group, name)) for name, column in chances.items()},
        order=torch.from_numpy((u[..., 8] * len(ORDERS)).astype(np.int64)),
    )
