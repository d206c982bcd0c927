"""Heads from strings: ``"2048-bn-relu-2048-bn-relu-1024"``."""

from __future__ import annotations

from torch import nn

from frossl.core.types import UserError


def mlp(features: int, spec: str) -> nn.Sequential:
    """An MLP on ``features`` inputs: numbers are Linear layers, ``bn`` and ``relu`` what they say.

    A Linear that feeds a batch norm has no bias, which the norm would remove. ``""`` is the identity.

    >>> [type(m).__name__ for m in mlp(8, "16-bn-relu-4")]
    ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    """
    parts = spec.split("-") if spec else []
    layers: list[nn.Module] = []
    for i, part in enumerate(parts):
        if part.isascii() and part.isdecimal() and int(part) > 0:
            layers.append(nn.Linear(features, int(part), bias=parts[i + 1 : i + 2] != ["bn"]))
            features = int(part)
        elif part == "bn":
            layers.append(nn.BatchNorm1d(features))
        elif part == "relu":
            layers.append(nn.ReLU(inplace=True))
        else:
            raise UserError(
                f"projector {spec!r}: {part!r} is neither a positive width nor bn nor relu; "
                "write it like 2048-bn-relu-2048-bn-relu-1024"
            )
    return nn.Sequential(*layers)
