"""Which views a method sees, as data: a recipe is a tuple of groups of views with the same parameters.

The named recipes, ``recipes.toml``, are those of the paper's public configurations and some by domain. Order of
operations: random resized crop, flip, colour jitter (its four operations in random order), grayscale, blur, solarize,
normalise. The public files flip after solarize, which gives the same views.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from frossl.core.config import from_plain
from frossl.core.registry import Registry
from frossl.core.types import UserError
from frossl.views.ops import FILTERS


@dataclass(frozen=True, kw_only=True)
class View:
    """Parameters of ``count`` views of one image; probabilities in [0, 1], scale as a share of the image's area."""

    count: int = 2
    size: int = 32
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"
    flip: float = 0.5
    vertical: float = 0.0
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grayscale: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    solarize_threshold: float = 128 / 255

    def __post_init__(self) -> None:
        def check(good: bool, name: str, rule: str) -> None:
            if not good:
                raise UserError(f"view: {name} {rule}, got {getattr(self, name)!r}")

        for name in ("flip", "vertical", "jitter", "grayscale", "blur", "solarize"):
            check(0 <= getattr(self, name) <= 1, name, "is a probability between 0 and 1")
        for name in ("brightness", "contrast", "saturation"):
            check(getattr(self, name) >= 0, name, "is how far a factor goes from 1, at least 0")
        check(0 < self.scale[0] <= self.scale[1] <= 1, "scale", "must be 0 < low <= high <= 1")
        check(0 < self.ratio[0] <= self.ratio[1], "ratio", "must be 0 < low <= high")
        check(0 <= self.hue <= 0.5, "hue", "is a fraction of the circle between 0 and 0.5")
        check(0 < self.blur_sigma[0] <= self.blur_sigma[1], "blur_sigma", "must be 0 < low <= high")
        check(self.interpolation in FILTERS, "interpolation", f"must be {' or '.join(FILTERS)}")
        check(self.count >= 1, "count", "must be at least 1")
        check(self.size >= 1, "size", "must be at least 1")


Recipe = tuple[View, ...]

VIEWS: Registry[Recipe] = Registry("view recipe")


_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
for _name, _groups in _TABLE["recipe"].items():
    VIEWS.add(_name, tuple(from_plain(View, _TABLE["base"].get(g.pop("base", ""), {}) | g) for g in _groups))

DOMAINS = {
    "natural": "photographs; the default for three channels",
    "grey": "medical images, X-ray, documents; the default for one channel",
    "satellite": "images from above, which have no upper edge; the default for other numbers of channels",
    "multicrop": "photographs, with small views of parts of the image beside two large ones",
}


def summary(name: str) -> str:
    """One line on a named recipe: the domain it is for, or else its views."""
    groups = VIEWS[name]
    views = " + ".join(f"{group.count} of {group.size}px" for group in groups)
    crops = f"crops of {min(g.scale[0] for g in groups):.0%} to {max(g.scale[1] for g in groups):.0%}"
    kinds = [kind for kind in ("jitter", "grayscale", "blur", "solarize") if any(getattr(g, kind) for g in groups)]
    return DOMAINS.get(name) or f"{views}, {crops}, {', '.join(kinds)}"


def domain(channels: int) -> str:
    """The default recipe for images with this number of channels."""
    return {1: "grey", 3: "natural"}.get(channels, "satellite")


def left_out(recipe: Recipe, channels: int) -> str:
    """A sentence on the operations of ``recipe`` that images with this number of channels do not get, or nothing."""
    if channels == 3:
        return ""
    asked = [
        name
        for name in ("saturation", "hue", "grayscale")
        if any(getattr(group, name) and (group.jitter or name == "grayscale") for group in recipe)
    ]
    images = f"images have {channels} channel{'s' * (channels != 1)}"
    return f"left out of the views, as {images} and not the three of colour: {', '.join(asked)}" if asked else ""


def least_side(recipe: Recipe) -> int:
    """The shorter side of an image, in pixels, at which even the smallest crop is shrunk to half its size or less.

    A larger image may be decoded at that size: what is lost are frequencies that no view can hold.
    """

    def side(group: View) -> float:
        longest = max(group.ratio[1], 1 / group.ratio[0])
        return 2 * group.size / math.sqrt(group.scale[0] / longest)

    return math.ceil(max(side(group) for group in recipe))


def with_views(recipe: Recipe, views: int) -> Recipe:
    """``recipe`` with ``views`` views in all: of a single group, or shared out over groups of one view in turn."""
    if views < 2:
        raise UserError(f"--views must be at least 2, got {views}: the objectives compare views of one image")
    if sum(group.count for group in recipe) == views:
        return recipe
    if len({group.size for group in recipe}) > 1:
        counts = " + ".join(f"{g.count}x{g.size}px" for g in recipe)
        raise UserError(f"this view recipe has groups of different size ({counts}); --views cannot divide them")
    shares = [views // len(recipe) + (i < views % len(recipe)) for i in range(len(recipe))]
    return tuple(replace(group, count=share) for group, share in zip(recipe, shares, strict=True) if share)


def pair(recipe: Recipe) -> Recipe:
    """Two views of the largest resolution of ``recipe``: what figures that depend on the number of views take."""
    return with_views(tuple(group for group in recipe if group.size == recipe[0].size), 2)


def with_size(recipe: Recipe, size: int) -> Recipe:
    """``recipe`` with its largest views ``size`` pixels wide and the others in proportion."""
    if size < 1:
        raise UserError(f"--size must be at least 1 pixel, got {size}")
    largest = max(group.size for group in recipe)
    return tuple(replace(group, size=max(1, round(group.size * size / largest))) for group in recipe)


def with_scale(recipe: Recipe, scale: tuple[float, float]) -> Recipe:
    """``recipe`` with crops that cover between ``scale[0]`` and ``scale[1]`` of the image's area."""
    return tuple(replace(group, scale=scale) for group in recipe)
