"""Alignment and uniformity on the hypersphere (Wang and Isola, arXiv 2005.10242)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from frossl.core.types import Features
from frossl.evals import metric


def alignment(h_VNF: Tensor) -> float:
    """Mean squared distance of unit-length features of two views of one image, over all pairs of views; 0 to 4."""
    h = normalize(h_VNF, dim=2)
    views = len(h)
    # Sum over ordered pairs = 2 V sum_v |h_v - mean|^2, without the cancellation of the expanded square.
    return (2 * views * (h - h.mean(0)).square().sum() / (h.shape[1] * views * (views - 1))).item()


def uniformity(x_NF: Tensor, limit: int = 4096) -> float:
    """log of the mean over pairs of exp(-2 |x - y|^2) for unit-length features; lower is more uniform, 0 collapsed."""
    chosen = torch.linspace(0, len(x_NF) - 1, min(limit, len(x_NF))).long()  # spread, as images may lie by class
    x = normalize(x_NF[chosen], dim=1)
    return torch.pdist(x).square().mul(-2).exp().mean().log().item()


@metric(
    "alignment",
    needs_labels=False,
    protocol="alignment, uniformity: Wang and Isola on unit-length features of held-out images, "
    "alignment over two views of the training recipe",
)
def alignment_and_uniformity(features: Features) -> dict[str, float]:
    """Alignment where views were extracted, and uniformity."""
    values = {} if features.views_VNF is None else {"alignment": alignment(features.views_VNF)}
    return values | {"uniformity": uniformity(features.test_NF)}
