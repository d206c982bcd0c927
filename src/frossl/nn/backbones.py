"""Encoders by timm name, with stems for small images."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from frossl.core.registry import unknown_name
from frossl.core.types import UserError

STEMS = ("auto", "imagenet", "small", "cifar")
SMALL_STEMS = {"small": (2, 1), "cifar": (1, 2)}
"""Stride and padding of the 3x3 convolution that replaces a 7x7 one and its pooling."""
SMALL = 48
"""Up to this many pixels ``auto`` takes the small stem; the paper keeps the ImageNet stem from 64 pixels on."""


def build_backbone(
    name: str, *, channels: int = 3, stem: str = "auto", size: int = 224, options: dict[str, Any] | None = None
) -> nn.Module:
    """An encoder with random weights that maps ``(B, C, H, W)`` to ``(B, F)``.

    Args:
        name: any timm model name, without a tag of pretrained weights.
        channels: input channels.
        stem: for convolutional nets that begin with ``conv1`` and ``maxpool``. ``"imagenet"`` leaves them alone;
            ``"cifar"`` is the paper's (3x3, stride 1, padding 2, no pooling: full resolution, expensive); ``"small"``
            is 3x3, stride 2, no pooling; ``"auto"`` is ``"small"`` up to 48 pixels where the net has such a stem,
            else ``"imagenet"``.
        size: side of the images in pixels, for ``"auto"`` and for encoders that need to know it.
        options: passed on to timm; ``{"channels": (32, 64, 128, 256)}`` makes a ResNet of half width.

    Raises:
        UserError: unknown name, option or stem, or a stem that this encoder cannot have.
    """
    stem = resolve_stem(name, stem, size, options)
    model = create(name, channels, sized_options(name, size, options))
    for norm in model.modules():
        # timm starts residual branches at zero; the paper's encoders (torchvision's) do not, and an untrained
        # encoder without its branches would be too weak a control.
        if isinstance(norm, nn.BatchNorm2d) and norm.affine and not norm.weight.any():
            nn.init.ones_(norm.weight)
    if stem != "imagenet":
        conv = model.conv1
        assert isinstance(conv, nn.Conv2d)
        stride, padding = SMALL_STEMS[stem]
        model.conv1 = nn.Conv2d(channels, conv.out_channels, 3, stride, padding, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return model


def resolve_stem(name: str, stem: str, size: int, options: dict[str, Any] | None = None) -> str:
    """``stem`` with ``"auto"`` decided; arguments and errors as :func:`build_backbone`."""
    import timm

    if stem not in STEMS:
        raise unknown_name("stem", stem, list(STEMS))
    architecture, _, tag = name.partition(".")
    if tag and timm.is_model(architecture):
        raise UserError(
            f"encoder {name!r}: .{tag} names pretrained weights, and this version starts from random ones; give "
            f"{architecture!r}"
        )
    if not timm.is_model(name):
        raise unknown_name("timm model", name, timm.list_models(), "see timm.list_models()")
    with torch.device("meta"):
        model = create(name, 3, options or {})
    replaceable = isinstance(getattr(model, "conv1", None), nn.Conv2d) and hasattr(model, "maxpool")
    if stem == "auto":
        return "small" if replaceable and size <= SMALL else "imagenet"
    if stem != "imagenet" and not replaceable:
        raise UserError(f"{name!r} has no conv1/maxpool stem to replace; use --stem imagenet")
    return stem


def takes_one_size(name: str) -> bool:
    """Whether this timm encoder is built for images of one size, as vision transformers are."""
    import timm

    return bool(timm.is_model(name) and timm.get_pretrained_cfg_value(name, "fixed_input_size"))


def sized_options(name: str, size: int, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """``options`` for timm, with the size of the images where the encoder needs it."""
    return ({"img_size": size} if takes_one_size(name) else {}) | (options or {})


READ_FILES = ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""Options with which timm reads other files, pickles too; a run directory from elsewhere must not ask for that."""


def create(name: str, channels: int, options: dict[str, Any]) -> nn.Module:
    import timm

    if refused := sorted(set(options) & set(READ_FILES)):
        raise UserError(
            f"backbone options may describe an architecture, not read files: leave out {', '.join(refused)}"
        )
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels, **options)
    except (TypeError, AssertionError, RuntimeError, AttributeError) as error:
        raise UserError(f"timm could not build {name!r} with options {options}: {error}") from None
