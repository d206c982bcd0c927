"""Encoders for evaluation alone, with batch norms folded into the convolutions before them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

ROUNDING = 1e-4
"""The largest difference of features, as a share of their largest, that is put down to rounding."""


@torch.no_grad()
def without_batch_norms(encoder: nn.Module, x: Tensor) -> nn.Module:
    """``encoder``, in eval mode, as a module that folds each batch norm into the convolution before it.

    A tenth faster or more on the CPU for a ResNet, and equal but for rounding, which is tried on ``x``. An encoder
    without batch norms, one that cannot be traced, or whose features would be others, is returned as it is.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules()):
        return encoder
    try:
        folded = fuse(encoder)  # a copy
        expected, found = encoder(x), folded(x)
    except Exception:  # tracing runs the encoder's code on stand-ins, which may raise anything
        return encoder
    near = torch.allclose(found, expected, rtol=0, atol=ROUNDING * expected.abs().max().item())
    return folded if near else encoder
