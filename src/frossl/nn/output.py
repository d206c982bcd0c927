"""What an encoder returns: one vector per image in eval mode and in train mode, or an error that says what instead."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from frossl.core.device import fork_random
from frossl.core.types import UserError
from frossl.nn.modes import eval_mode, kept_in_eval, train_mode


@torch.no_grad()
def feature_width(backbone: nn.Module, channels: int, size: int) -> int:
    """F of ``backbone``, from one blank image in eval mode.

    Raises:
        UserError: the output is not a tensor ``(B, F)``.
    """
    with eval_mode(backbone):
        return _features(backbone, channels, size, images=1).shape[1]


def trains(backbone: nn.Module, channels: int, size: int, features: int, device: torch.device) -> bool:
    """Whether a gradient reaches a parameter of ``backbone``, from two blank images in train mode on ``device``.

    Runs on a copy; torch's generator is left as it was.

    Raises:
        UserError: the output in train mode is not a tensor ``(B, features)``.
    """
    copied = train_mode(copy.deepcopy(backbone), kept_in_eval(backbone)).to(device)
    with fork_random(device), torch.enable_grad():
        h = _features(copied, channels, size, images=2)
    if h.shape[1] != features:
        raise UserError(f"the encoder returns {features} features in eval mode and {h.shape[1]} in train mode")
    return h.requires_grad


def _features(backbone: nn.Module, channels: int, size: int, images: int) -> Tensor:
    some = next(backbone.parameters(), torch.empty(0))
    mode = "train mode" if backbone.training else "eval mode"
    try:
        h = backbone(torch.zeros(images, channels, size, size, device=some.device, dtype=some.dtype))
    except (RuntimeError, AssertionError, AttributeError, ValueError, IndexError) as error:
        raise UserError(f"the encoder does not take {channels} x {size} x {size} images in {mode}: {error}") from error
    if not isinstance(h, Tensor):
        raise UserError(_not_a_tensor(h, mode))
    if h.ndim != 2 or len(h) != images:
        count = "one image" if images == 1 else f"{images} images"
        raise UserError(
            f"the encoder must give one vector per image, (B, F); got {tuple(h.shape)} for {count} in {mode}"
        )
    return h


def _not_a_tensor(output: Any, mode: str) -> str:
    """The message for an output that is no tensor, with its type and the shapes of its parts."""
    parts = _parts(output)
    shown = ", ".join(f"{at} {tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__}" for at, x in parts[:8])
    shown = f" of {shown}" + (" and others" if len(parts) > 8 else "") if shown else ""
    return (
        f"the encoder must return one tensor (B, F); in {mode} it returned {type(output).__name__}{shown}. Wrap it in "
        "a module whose forward returns one vector per image, pooled where it is a map or tokens, in both modes"
    )


def _parts(output: Any) -> list[tuple[str, Any]]:
    """The parts of ``output``, each after the expression that takes it."""
    if isinstance(output, Mapping):
        return [(f"[{key!r}]", part) for key, part in output.items()]
    if isinstance(output, tuple) and hasattr(output, "_asdict"):
        return [(f".{name}", part) for name, part in output._asdict().items()]  # type: ignore[attr-defined]
    if isinstance(output, tuple | list):
        return [(f"[{i}]", part) for i, part in enumerate(output)]
    return [(f".{name}", part) for name, part in getattr(output, "__dict__", {}).items()]
