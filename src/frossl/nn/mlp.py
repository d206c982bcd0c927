"""Heads from strings: ``"2048-bn-relu-2048-bn-relu-1024"``."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from frossl.core.types import UserError


def mlp(features: int, spec: str) -> nn.Sequential:
    """An MLP on ``features`` inputs: numbers are Linear layers, ``bn``, ``relu`` and ``gelu`` what they say.

    ``standardise`` is a batch norm without scale and shift. A Linear that feeds a norm has no bias, which the norm
    would remove. ``""`` is the identity.

    >>> [type(m).__name__ for m in mlp(8, "16-bn-relu-4")]
    ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    """
    parts = spec.split("-") if spec else []
    layers: list[nn.Module] = []
    for part, following in pairwise([*parts, ""]):
        if _is_width(part):
            layers.append(nn.Linear(features, int(part), bias=following not in ("bn", "standardise")))
            features = int(part)
        elif part in ("bn", "standardise"):
            layers.append(nn.BatchNorm1d(features, affine=part == "bn"))
        elif part == "relu":
            layers.append(nn.ReLU(inplace=True))
        elif part == "gelu":
            layers.append(nn.GELU())
        else:
            raise UserError(
                f"projector {spec!r}: {part!r} is neither a positive width nor bn nor relu nor gelu nor standardise; "
                "write it like 2048-bn-relu-2048-bn-relu-1024"
            )
    return nn.Sequential(*layers)


def output_width(features: int, spec: str) -> int:
    """How many outputs :func:`mlp` has.

    >>> output_width(8, "16-bn-relu-4-standardise"), output_width(8, "")
    (4, 8)
    """
    return next((int(part) for part in reversed(spec.split("-")) if _is_width(part)), features)


def _is_width(part: str) -> bool:
    return part.isascii() and part.isdecimal() and int(part) > 0
