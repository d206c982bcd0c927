"""Sizes of images that an encoder takes and sees to the last row and column."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from frossl.nn.backbones import create, sized_options, takes_one_size

FLEXIBLE = ({}, {"dynamic_img_size": True})
"""timm's options that may let an encoder built for one size take others, by resampling its position embedding."""


@dataclass(frozen=True)
class Net:
    """An encoder before it is built: a timm name with its options, as JSON holds them, or a module.

    Of a module nothing is known but the ``patch_size`` of a ``patch_embed`` in it.
    """

    encoder: str | nn.Module
    channels: int
    options: dict[str, Any]

    @property
    def title(self) -> str:
        return self.encoder if isinstance(self.encoder, str) else type(self.encoder).__qualname__


class Coverage(NamedTuple):
    """Whether an encoder sees all of an image, and if not, the side of the patches that do not tile it.

    A side of 0 is another reason: it does not take images of that size.
    """

    complete: bool
    patch: int = 0


def coverage(net: Net, size: int, built: int | None = None) -> Coverage:
    """What ``net`` sees of images of ``size`` pixels, built for those or for images of ``built`` pixels."""
    if isinstance(net.encoder, str):
        return _try(net.encoder, json.dumps(net.options), net.channels, size, built or size)
    patch = max((side for side in _patch(net.encoder) if size % side), default=0)
    return Coverage(not patch, patch)


def nearest_size(
    net: Net, size: int, *, up: bool = True, built: int | None = None, below: float = math.inf
) -> int | None:
    """The smallest size from ``size`` on that ``net`` sees all of, or the largest up to it; None if none is found.

    Candidates are the multiples next to ``size`` of what divides the size that the encoder was made for, as its
    patches, windows and strides do, as far as they are ``below`` a size.
    """
    base = _base(net)
    steps = [step for step in range(1, base + 1) if base % step == 0]
    sizes = {(-(-size // step) if up else size // step) * step for step in steps} - {0}
    patch = 1
    for candidate in sorted(sizes, reverse=not up):
        if candidate < below and candidate % patch == 0:
            found = coverage(net, candidate, built)
            if found.complete:
                return candidate
            patch = found.patch or patch
    return None


def _base(net: Net) -> int:
    """A multiple of the patches, windows and strides of ``net``."""
    if not isinstance(net.encoder, str):
        return math.lcm(*_patch(net.encoder))
    import timm

    made_for = timm.get_pretrained_cfg_value(net.encoder, "input_size") or (224,)
    given = [net.options.get(name) or 1 for name in ("patch_size", "img_size")]
    return math.lcm(made_for[-1], *(x for side in given for x in (side if isinstance(side, tuple | list) else [side])))


def _patch(module: nn.Module) -> tuple[int, ...]:
    """Height and width of the patches of a ``patch_embed`` in ``module``; nothing if it pads, or there is none."""
    for name, part in module.named_modules():
        side = getattr(part, "patch_size", None)
        if name.rpartition(".")[2] == "patch_embed" and side and not getattr(part, "dynamic_img_pad", False):
            return tuple(side) if isinstance(side, tuple | list) else (side,)
    return ()


@cache
def _try(name: str, options: str, channels: int, size: int, built: int) -> Coverage:
    """Runs the encoder on the meta device, which computes shapes alone, and records what its patches leave out."""
    cut: set[int] = set()
    embedded: set[int] = set()

    def record(embeds: bool, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        height, width = inputs[0].shape[-2:]
        if not isinstance(layer, nn.Conv2d | nn.Unfold):
            embedded.update(side for side in _patch(layer) if size % side)
        elif embeds or min(height, width) >= size:  # else what it leaves out was mixed into the rest before
            cut.update(stride * max(1, round(size / height)) for stride in _cut(layer, height, width))

    def encode(device: str) -> nn.Module:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device(device):
            model = create(name, channels, sized_options(name, built, json.loads(options))).eval()
            for path, layer in model.named_modules():
                if layer is model or isinstance(layer, nn.Conv2d | nn.Unfold):
                    embeds = isinstance(layer, nn.Unfold) or "patch_embed" in path.split(".")
                    layer.register_forward_pre_hook(partial(record, embeds))
            model(torch.zeros(1, channels, size, size))
        return model

    try:
        stages = {stage.get("reduction") for stage in getattr(encode("meta"), "feature_info", ())}
        if not cut and len(stages) > 1 and takes_one_size(name):
            # Indices in tables of relative positions have no values there; MViTv2 has some that do not exist.
            encode("cpu")
    except Exception:  # whatever it says, it does not take this size
        return Coverage(False, max(cut or embedded, default=0))
    return Coverage(not cut, max(cut, default=0))


def _cut(layer: Any, *lengths: int) -> list[int]:
    """Strides with which ``layer`` leaves rows or columns of its input out.

    The stem of a convolutional net may: with its overlapping windows of stride two that is one row at most.
    """
    kernels, strides, pads = (
        x if isinstance(x, tuple | list) else (x, x) for x in (layer.kernel_size, layer.stride, layer.padding)
    )
    return [
        stride
        for length, kernel, stride, pad in zip(lengths, kernels, strides, pads, strict=True)
        if (stride > 2 or kernel == stride > 1) and (length + 2 * pad - kernel) % stride > pad
    ]
