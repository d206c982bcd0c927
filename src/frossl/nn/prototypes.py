"""Prototypes: learned directions that embeddings are compared with, in SwAV and DINO."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from frossl.core.linalg import unit_rows


class Prototypes(nn.Module):
    """Cosines of embeddings ``(..., D)`` with ``count`` learned directions: ``(..., K)``.

    The rows of ``weight`` start as unit vectors and enter the product with unit norm whatever theirs is. That is a
    weight norm of fixed length 1, as in DINO, and stands for the renormalising of the weights before each step of SwAV.
    """

    def __init__(self, features: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(unit_rows(torch.randn(count, features)))

    def forward(self, z: Tensor, frozen: bool = False) -> Tensor:
        """In the precision of the weights, also under autocast, since the cosines get divided by small temperatures.

        ``frozen``: the directions are constants, whose gradient stays None, so that no optimiser moves them.
        """
        weight = self.weight.detach() if frozen else self.weight
        with torch.autocast(z.device.type, enabled=False):
            return functional.linear(unit_rows(z.to(weight.dtype)), unit_rows(weight))

    def extra_repr(self) -> str:
        count, features = self.weight.shape
        return f"features={features}, count={count}"
