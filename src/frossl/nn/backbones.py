"""Encoders by timm name, with stems for small images."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from frossl.core.registry import unknown_name
from frossl.core.types import UserError

STEMS = ("auto", "imagenet", "small", "cifar")


def build_backbone(name: str, *, channels: int = 3, stem: str = "auto", size: int = 224, **options: Any) -> nn.Module:
    """An encoder with random weights that maps ``(B, C, H, W)`` to ``(B, F)``.

    Args:
        name: any timm model name.
        channels: input channels.
        stem: for convolutional nets that begin with ``conv1`` and ``maxpool``. ``"imagenet"`` leaves them alone;
            ``"cifar"`` is the paper's (3x3, stride 1, padding 2, no pooling: full resolution, expensive); ``"small"``
            is 3x3, stride 2, no pooling; ``"auto"`` is ``"small"`` up to 96 pixels where the net has such a stem,
            else ``"imagenet"``.
        size: side of the images in pixels, for ``"auto"`` and for encoders that need to know it.
        options: passed to timm, e.g. ``channels=(32, 64, 128, 256)`` for a ResNet of half width as
            ``{"channels": ...}`` in a dictionary.

    Raises:
        UserError: unknown name, option or stem, or a stem that this encoder cannot have.
    """
    if stem not in STEMS:
        raise unknown_name("stem", stem, list(STEMS))
    if not timm.is_model(name):
        raise unknown_name("timm model", name, timm.list_models())
    try:
        model = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels, **options)
    except (TypeError, AssertionError) as error:
        raise UserError(f"timm could not build {name!r} with {options}: {error}") from None
    conv = getattr(model, "conv1", None)
    has_stem = isinstance(conv, nn.Conv2d) and hasattr(model, "maxpool")
    if stem == "auto":
        stem = "small" if has_stem and size <= 96 else "imagenet"
    if stem != "imagenet":
        if not has_stem:
            raise UserError(f"{name!r} has no conv1/maxpool stem to replace; use --stem imagenet")
        stride, padding = (1, 2) if stem == "cifar" else (2, 1)
        model.conv1 = nn.Conv2d(channels, conv.out_channels, 3, stride, padding, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return model


@torch.no_grad()
def feature_width(backbone: nn.Module, channels: int, size: int) -> int:
    """F of ``backbone``, by looking at one blank image in eval mode.

    Raises:
        UserError: the output is not ``(B, F)``.
    """
    was_training = backbone.training
    backbone.eval()
    try:
        h: Tensor = backbone(torch.zeros(1, channels, size, size))
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"the encoder does not take {channels} x {size} x {size} images: {error}") from None
    backbone.train(was_training)
    if h.ndim != 2:
        raise UserError(f"the encoder must give one vector per image, (B, F); got {tuple(h.shape)} for one image")
    return h.shape[1]
