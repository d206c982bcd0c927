"""Alignment and uniformity on the hypersphere (Wang and Isola, arXiv 2005.10242)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from frossl.core.types import Features
from frossl.evals import Column, metric
from frossl.evals.interval import jackknife, with_interval


def alignment(h_VNF: Tensor) -> float:
    """Mean squared distance of unit-length features of two views of one image, over all pairs of views; 0 to 4."""
    return _alignments(h_VNF).mean().item()


def _alignments(h_VNF: Tensor) -> Tensor:
    """The same of each image, ``(N,)``."""
    h = normalize(h_VNF, dim=2)
    views = len(h)
    # Sum over ordered pairs = 2 V sum_v |h_v - mean|^2, without the cancellation of the expanded square.
    return 2 / (views - 1) * (h - h.mean(0)).square().sum((0, 2))


def uniformity(x_NF: Tensor, limit: int = 4096) -> float:
    """log of the mean over pairs of exp(-2 |x - y|^2) for unit-length features; lower is more uniform, 0 collapsed."""
    return _log_mean_of_pairs(_potentials(x_NF, limit))


def _potentials(x_NF: Tensor, limit: int = 4096) -> Tensor:
    """exp(-2 |x - y|^2) of all pairs of at most ``limit`` images, which are spread as they may lie by class.

    Features that are 0 have no direction: they are one point, the middle of the sphere.
    """
    chosen = torch.linspace(0, len(x_NF) - 1, min(limit, len(x_NF))).long()
    x = normalize(x_NF[chosen].double(), dim=1)
    square = (x * x).sum(1)
    return (x @ x.T).mul_(2).sub_(square).sub_(square[:, None]).mul_(2).exp_()


def _log_mean_of_pairs(potential_NN: Tensor) -> float:
    n = len(potential_NN)
    return ((potential_NN.sum() - potential_NN.trace()) / (n * (n - 1))).log().item()


@metric(
    "alignment",
    needs_labels=False,
    protocol="alignment, uniformity: Wang and Isola on unit-length features of held-out images, "
    "alignment over two views of the training recipe; intervals by Student's t and by jackknife over images",
    columns={
        "alignment": Column("align.", "alignment", better="lower"),
        "uniformity": Column("unif.", "uniformity", better="lower"),
    },
    order=120,
    needs_views=True,
    default_of=("evaluate", "compare"),
    glossary={
        "Alignment, uniformity": "How far apart the features of two views of an image are (lower is better), and how "
        "evenly features cover the sphere (lower is more even)."
    },
)
def alignment_and_uniformity(features: Features) -> dict[str, float]:
    """Alignment where views were extracted, and uniformity of two images and more, with their intervals."""
    values = {} if features.views_VNF is None else with_interval("alignment", _alignments(features.views_VNF))
    potential = _potentials(features.test_NF)

    def of_pairs(kept: Tensor) -> dict[str, float]:
        return {"uniformity": _log_mean_of_pairs(potential[kept][:, kept])} if len(kept) > 1 else {}

    return values | jackknife(of_pairs, len(potential))
