"""Views for loops of your own, with the same pixels as in training for the same seed, epoch and image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from frossl.core.types import UserError
from frossl.views.make import render_views
from frossl.views.params import sample_params
from frossl.views.recipes import VIEWS, Recipe, View, with_size, with_views

LARGEST = 96
"""Side of images that small views are made of without being asked for, as in training."""
FEWEST = 4
"""Pixels that no image is as narrow as, but channels may be as few."""


def make_views(
    images_NCHW: Tensor,
    recipe: str | Recipe | View = "natural",
    *,
    size: int | None = None,
    views: int | None = None,
    seed: int = 0,
    epoch: int = 0,
    index: Tensor | Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Tensor | list[Tensor]:
    """Views of uint8 images ``(N, C, H, W)``: ``(V, N, C, S, S)``, or a list of them, one for each resolution.

    Every random number is a function of seed, epoch, index and view: the same call gives the same views.

    Args:
        images_NCHW: uint8, on any device; views are made there.
        recipe: a name of :data:`frossl.views.VIEWS`, or one or several groups of :class:`frossl.views.View`.
        size: side S of the largest views in pixels; if None the recipe's, as of published ones, or else 32, for images
            of up to 96 pixels.
        views: how many views V in all; the recipe's if None.
        seed: of everything random.
        epoch: other views in each epoch.
        index: ``(N,)``, which images of the data set these are; 0 to N - 1 if None.
        mean: of each channel in [0, 1], to subtract; 0 if None.
        std: of each channel, to divide by; 1 if None.

    Returns:
        float32, before mean and deviation in [0, 1], up to rounding.

    Raises:
        UserError: images that are not uint8 ``(N, C, H, W)``, an unknown recipe, or a number that does not fit.

    >>> images = torch.zeros(4, 3, 40, 50, dtype=torch.uint8)
    >>> make_views(images, "natural", size=32, views=3).shape
    torch.Size([3, 4, 3, 32, 32])
    """
    groups = resolve(recipe, size, views)
    _check_images(images_NCHW)
    n, channels, height, width = images_NCHW.shape
    if size is None and min(height, width) > LARGEST and groups[0].size == View.size:
        raise UserError(f"give size: views would be {View.size} pixels wide, of images of {height} x {width}")
    if seed < 0:
        raise UserError(f"seed must be at least 0, got {seed}")
    index_N = torch.arange(n) if index is None else torch.as_tensor(index)
    if index_N.shape != (n,) or index_N.is_floating_point():
        raise UserError(f"index must be {n} integers, one per image; got {index_N.dtype} {tuple(index_N.shape)}")
    params = sample_params(groups, seed=seed, epoch=epoch, index_N=index_N, height=height, width=width)
    if std is not None and min(std) <= 0:
        raise UserError(f"std must be more than 0, got {list(std)}")
    made = render_views(images_NCHW, groups, params, mean or [0.0] * channels, std or [1.0] * channels)
    return made[0] if len(made) == 1 else made


def _check_images(images_NCHW: Tensor) -> None:
    """Refuses what is no batch of 8-bit images, or has its channels last.

    Raises:
        UserError: says what it is.
    """
    shape = tuple(images_NCHW.shape)
    if images_NCHW.ndim != 4 or images_NCHW.dtype != torch.uint8 or 0 in shape:
        raise UserError(f"images must be uint8 (N, C, H, W), got {images_NCHW.dtype} {shape}")
    if min(shape[2:]) <= FEWEST < shape[1]:
        raise UserError(
            f"images of shape {shape} seem to have their channels last: channels come before height and width"
        )


def resolve(recipe: str | Recipe | View, size: int | None = None, views: int | None = None) -> Recipe:
    """The groups of a recipe with largest views of ``size`` pixels and ``views`` views in all, where these are given.

    Raises:
        UserError: an unknown name, or numbers that do not fit.
    """
    groups = VIEWS[recipe] if isinstance(recipe, str) else (recipe,) if isinstance(recipe, View) else recipe
    groups = groups if size is None else with_size(groups, size)
    return groups if views is None else with_views(groups, views)


class ViewTransform:
    """The transform of a ``Dataset``: one image, of any size, to its views ``(V, C, S, S)``.

    Arguments as those of :func:`make_views`, whose pixels it makes. Several resolutions give a list of tensors.

    >>> transform = ViewTransform("natural", size=32)
    >>> transform(torch.zeros(3, 40, 50, dtype=torch.uint8)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        recipe: str | Recipe | View = "natural",
        *,
        size: int | None = None,
        views: int | None = None,
        seed: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        self.recipe = resolve(recipe, size, views)
        self.how = {"seed": seed, "mean": mean, "std": std}

    def __call__(self, image: Any, index: int | None = None, epoch: int = 0) -> Tensor | list[Tensor]:
        """Views of a PIL image of 8 bits, a uint8 tensor ``(C, H, W)`` or array ``(H, W)`` or ``(H, W, C)``.

        Without ``index``, which image it is, the views are other ones at each call, by torch's generator, as in a
        ``Dataset`` whose transform sees the image alone.

        Raises:
            UserError: an image that is none of these.
        """
        index = int(torch.randint(2**62, ())) if index is None else index
        made = make_views(_as_tensor(image)[None], self.recipe, epoch=epoch, index=[index], **self.how)
        return made[:, 0] if isinstance(made, Tensor) else [x[:, 0] for x in made]


def _as_tensor(image: Any) -> Tensor:
    if isinstance(image, Tensor) and image.ndim == 3:
        return image
    if isinstance(image, Image):
        if image.mode.startswith(("I", "F")):
            how = "scale it to 8 bits first, by the range of all your images (convert('RGB') would cut it off at 255)"
            raise UserError(f"an image of PIL's mode {image.mode}: {how}")
        if image.mode not in ("L", "RGB"):
            raise UserError(f"an image of PIL's mode {image.mode}: convert it to RGB or L first, image.convert('RGB')")
        image = np.asarray(image)
    if isinstance(image, np.ndarray) and image.ndim in (2, 3):
        x = torch.tensor(image)
        return x[None] if x.ndim == 2 else x.permute(2, 0, 1)
    shape = f" {tuple(image.shape)}" if hasattr(image, "shape") else ""
    raise UserError(f"an image is PIL's, a tensor (C, H, W) or an array (H, W, C); got {type(image).__name__}{shape}")
