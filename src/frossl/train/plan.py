"""Resolves a configuration for given data and a given machine."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from frossl import __version__
from frossl.core.config import to_plain
from frossl.core.device import HALF, Precision
from frossl.core.distributed import world_size
from frossl.core.length import Length
from frossl.core.machine import environment, machine
from frossl.core.types import UserError
from frossl.data import Dataset
from frossl.evals.extract import Extractor
from frossl.nn.alike import alike, timm_name
from frossl.nn.backbones import SMALL_STEMS, resolve_stem, takes_one_size
from frossl.nn.encoder import OWN, EncoderSpec
from frossl.nn.published import for_images
from frossl.nn.tiling import FLEXIBLE, Net, coverage, nearest_size
from frossl.runs.config import Config, backbone_options
from frossl.train.resources import device_of, find_precision, workers_for
from frossl.views.recipes import VIEWS, Recipe, domain, with_scale, with_size, with_views


@dataclass(frozen=True)
class Plan:
    """A :class:`Config` resolved for given data and a given machine, except for its length.

    ``config`` holds the resolved values; it is saved, so that a resumed run does not decide them anew.
    """

    config: Config
    recipe: Recipe
    spec: EncoderSpec
    device: torch.device
    workers: int
    resized: str
    """which views have another size than asked for, and why; empty if none"""

    @property
    def batch(self) -> int:
        """Images per step, over all ranks."""
        assert self.config.batch is not None
        return self.config.batch

    @property
    def lr(self) -> float:
        """The peak learning rate for this batch; ``config.lr`` is for 256 images."""
        assert self.config.lr is not None
        return self.config.lr * self.batch / 256

    @property
    def precision(self) -> Precision:
        return self.config.precision

    @property
    def views(self) -> int:
        return sum(group.count for group in self.recipe)

    def extractor(self, over_ranks: bool = False) -> Extractor:
        half = HALF.get(self.precision)
        return Extractor(device=self.device, half=half, workers=self.workers, over_ranks=over_ranks)

    @property
    def view_dtype(self) -> torch.dtype:
        """The type of views: on accelerators that of the encoder's products."""
        return torch.float32 if self.device.type == "cpu" else HALF.get(self.precision, torch.float32)

    @property
    def chunks(self) -> int:
        """The number of parts in which a rank encodes its shard of a batch; none of them is empty.

        It is the same on all ranks, as batch norms communicate in every part.
        """
        largest, smallest = math.ceil(self.batch / world_size()), self.batch // world_size()
        return min(math.ceil(largest / (self.config.micro_batch or largest)), smallest)


LR, CONTINUED_LR = 2e-3, 1e-3
"""Peak learning rates of random and of published weights (docs/encoders.md)."""


def peak_rate(config: Config) -> float:
    """The peak learning rate for 256 images, of ``config`` or the default."""
    return config.lr or (LR if config.init is None else CONTINUED_LR)


def make_plan(config: Config, data: Dataset, own: nn.Module | None = None, start: EncoderSpec | None = None) -> Plan:
    """Resolves everything that ``config`` leaves to the data and the machine.

    ``own`` is an encoder of the caller; ``start`` describes the encoder with the weights that training starts from.

    Raises:
        UserError: the options do not fit the data, the machine or each other.
    """
    if start is not None:
        config = _continuing(config, start)
    device = device_of(config)
    side = min(data.typical)
    asked = config.size or (side if side <= 96 else 128 if device.type == "cpu" else 224)
    name = domain(data.channels) if config.view_recipe == "auto" else config.view_recipe
    options = backbone_options(config.backbone_options)
    # By the size of the views: the encoder is trained on these, and only evaluated on larger images.
    stem = "imagenet" if own is not None else resolve_stem(config.backbone, config.stem, asked, options)
    net = Net(config.backbone if own is None else own, data.channels, options)
    size = _supported_size(net, asked, exactly=config.size is not None)
    initial = _make_recipe(config, name, size, net)
    recipe, net = _fit_small_views(initial, net, name)
    _check_progressive(config.progressive, recipe, net)
    fixed = own is None and takes_one_size(config.backbone)
    spec = EncoderSpec(
        backbone=config.backbone if own is None else f"{OWN}{type(own).__qualname__}",
        channels=data.channels,
        size=_supported_size(net, max(side, size)) if side <= 96 and not fixed else size,
        stem=stem,
        features=0,  # known once the encoder is built
        mean=data.mean,
        std=data.std,
        values=data.values,
        range=data.range,
        options=net.options,
    )
    if start is not None:
        fed = for_images(start, channels=data.channels, size=spec.size)
        known = {"interpolation": fed.interpolation, "origin": fed.origin, "licence": fed.licence}
        spec = replace(spec, mean=fed.mean, std=fed.std, **known)
    batch = _batch(config, len(data.train))
    resolved = replace(
        config,
        batch_norm=("joint" if start is None else "frozen") if config.batch_norm == "auto" else config.batch_norm,
        lr=peak_rate(config),
        size=size,
        view_recipe=name,
        views=sum(group.count for group in recipe),
        range=data.range or None,
        stem=spec.stem,
        batch=batch,
        precision=find_precision(config.precision, device),
    )
    sizes = {asked: size} | {before.size: after.size for before, after in zip(initial[1:], recipe[1:], strict=True)}
    image_bytes = sum(group.count * group.size**2 for group in recipe) * data.channels
    workers = workers_for(config, data, math.ceil(batch / world_size()) * image_bytes)
    return Plan(resolved, recipe, spec, device, workers, _resized(net, sizes))


def _continuing(config: Config, start: EncoderSpec) -> Config:
    """``config`` with the backbone of the weights that training starts from, and their size if it has none.

    Raises:
        UserError: ``config`` has another backbone.
    """
    given = {"backbone": config.backbone.partition(".")[0], "stem": config.stem}  # the tag only names weights
    if other := [name for name, value in given.items() if value not in (getattr(Config, name), getattr(start, name))]:
        flags = " and ".join(f"--{name} {given[name]}" for name in other)
        raise UserError(f"{flags}: --init {config.init} is {start.title}; leave that out")
    options = json.dumps(start.options | backbone_options(config.backbone_options))
    size = config.size or start.size
    return replace(config, backbone=start.backbone, backbone_options=options, stem=start.stem, size=size)  # type: ignore[arg-type]


def plan_by_name(config: Config, data: Dataset, own: nn.Module) -> Plan | None:
    """The plan with the name, stem and options (of ``config``, or none) by which timm builds a module like ``own``.

    None if timm does not build it. A run of such a plan can be resumed from the command line.
    """
    name = timm_name(own)
    for options in dict.fromkeys((config.backbone_options, "{}")) if name else ():
        for stem in ("imagenet", *SMALL_STEMS):
            named = replace(config, backbone=name, stem=stem, backbone_options=options)
            try:
                plan = make_plan(named, data)
                built = plan.spec.build()
            except UserError:  # the net does not have this stem or option, or does not take these views
                continue
            sizes = {plan.spec.size, *(group.size for group in plan.recipe)}
            if alike(own, built, plan.spec.channels, sizes):
                return plan
    return None


def _supported_size(net: Net, size: int, exactly: bool = False) -> int:
    """``size``, or the next one, at most double, that ``net`` takes in full if it need not be ``exactly`` that.

    Raises:
        UserError: names the next smaller and larger size.
    """
    up = nearest_size(net, size)
    if up is not None and (up == size or (not exactly and up <= 2 * size)):
        return up
    down = nearest_size(net, size, up=False)
    if down is None and up is None:  # building the encoder will raise the error
        return size
    patch = coverage(net, size).patch
    why = f"sees images in patches of {patch}, which do not tile that" if patch else "does not take that"
    sizes = " or ".join(str(x) for x in (down, up) if x)
    raise UserError(f"views of {size} pixels: {net.title} {why}; give --size {sizes}")


def _fit_small_views(recipe: Recipe, net: Net, name: str) -> tuple[Recipe, Net]:
    """``recipe`` with smaller views at sizes that ``net``, built for the largest, takes in full, and that net.

    Raises:
        UserError: there are no such sizes below the largest.
    """
    large, *small = dict.fromkeys(group.size for group in recipe)
    if not small or not coverage(net, large).complete:
        return recipe, net
    for options in FLEXIBLE:
        flexible = replace(net, options=options | net.options)
        sizes = {x: nearest_size(flexible, x, built=large, below=large) for x in small}
        if None not in sizes.values():
            return tuple(replace(group, size=sizes.get(group.size, large)) for group in recipe), flexible
    raise UserError(
        f"{net.title} sees no views of {' or '.join(map(str, small))} pixels in full beside those of {large}, as view "
        f"recipe {name!r} has; choose another view recipe, a larger --size or a convolutional backbone"
    )


def _check_progressive(sizes: tuple[int, ...], recipe: Recipe, net: Net) -> None:
    """Raises :class:`UserError` if ``recipe`` cannot be made at these smaller ``sizes`` one after the other."""
    flag, largest = f"--progressive {' '.join(map(str, sizes))}", recipe[0].size
    if any(not 0 < a <= b for a, b in pairwise((*sizes, largest))):
        raise UserError(f"{flag}: give sizes in rising order, none above that of the views, {largest}")
    for size in dict.fromkeys(group.size for side in sizes for group in with_size(recipe, side)):
        if coverage(net, largest).complete and not coverage(net, size, largest).complete:
            raise UserError(f"{flag}: {net.title}, built for {largest} pixels, does not see views of {size} in full")


def _resized(net: Net, sizes: dict[int, int]) -> str:
    """A sentence on the ``sizes`` that changed, and why; empty if none did."""
    changed = {before: after for before, after in sizes.items() if before != after}
    if not changed:
        return ""
    patch = max(coverage(net, size).patch for size in changed)
    views = " and ".join(f"views of {before} pixels are made at {after}" for before, after in changed.items())
    return f"{views}, which " + (f"patches of {patch} tile" if patch else f"{net.title} takes")


def _make_recipe(config: Config, name: str, size: int, net: Net) -> Recipe:
    """The view recipe ``name`` with views of ``size`` pixels, and the number and crops of ``config``."""
    if config.cache is not None and config.cache < size:
        less = nearest_size(net, config.cache, up=False)
        raise UserError(
            f"images stored with a shorter side of {config.cache} pixels are too small for views of {size}; "
            f"give --cache {size} or more" + (f", or --size {less}" if less else "")
        )
    recipe = with_size(VIEWS[name], size)
    recipe = recipe if config.views is None else with_views(recipe, config.views)
    recipe = recipe if config.crop_scale is None else with_scale(recipe, config.crop_scale)
    if [g.size for g in recipe] != sorted((g.size for g in recipe), reverse=True):
        raise UserError(f"view recipe {name!r}: its groups must be in order of size, the largest first")
    return recipe


def _batch(config: Config, images: int) -> int:
    """Images per step, over all ranks."""
    batch = config.batch or next(b for b in (128, 64, 32, 16, 8, 4, 2, 1) if b == 1 or 4 * b <= images)
    if batch > images or batch < 2:
        less = f"give --batch {images} or less" if images > 1 else "give more images (at least 8)"
        raise UserError(f"a batch of {batch} does not fit {images} training images; {less}")
    if batch < world_size():
        raise UserError(f"a batch of {batch} leaves some of {world_size()} ranks without images; give a larger --batch")
    return batch


def describe(plan: Plan, length: Length, data: Dataset) -> dict[str, Any]:
    """The content of ``config.json``: the resolved configuration, and what follows from it."""
    return {
        "frossl": __version__,
        "environment": environment(),
        "machine": machine(),
        "config": to_plain(replace(plan.config, length=str(length))),
        "images": [len(data.train), len(data.test)],
        "views": to_plain(plan.recipe),
        "encoder": to_plain(plan.spec),
        "batch": plan.batch,
        "precision": plan.precision,
        "device": str(plan.device),
    }
