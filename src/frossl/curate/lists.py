"""Outlier scores, clusters, and the choice of images to label first."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from frossl.core.linalg import require_finite
from frossl.curate.neighbours import BLOCK, nearest
from frossl.curate.space import evenly_spaced, reduced
from frossl.evals.clustering import k_means
from frossl.evals.linear import standardise

BANK = 5000
"""Images that outliers are compared with, spread evenly."""
SHARE = 0.02
"""Share of the images that one may be near to and still be an outlier, so that strangers do not hide each other."""
LEAST = 10
FITTED = 20_000
"""Most images that k-means is fitted on, spread evenly."""
Choice = Literal["random", "typical"]


def outlier_scores(vectors_NF: Tensor) -> Tensor:
    """Outlier scores ``(N,)`` from 0 to 1: the share of the images that are less far from the others.

    How far an image is, is its distance to the k-th nearest image of a bank, with k :data:`SHARE` of the bank, at least
    :data:`LEAST`: a smaller group, such as a folder of another data set, counts as outliers. The larger share of two
    distances counts, that of normalised features (Sun et al., arXiv 2204.06507) and that of standardised ones: some
    encoders give unfamiliar images small features of unusual direction, others large ones of usual direction.
    """
    require_finite(vectors_NF, "embeddings")
    far = [_far(x) for x in (normalize(vectors_NF, dim=1), standardise(vectors_NF)[0])]
    return torch.maximum(*(torch.searchsorted(x.sort().values, x) / max(1, len(x) - 1) for x in far))


def _far(x_NF: Tensor) -> Tensor:
    """Distance ``(N,)`` of each image to its k-th nearest in the bank."""
    bank = evenly_spaced(len(x_NF), BANK)
    count = min(len(bank) - 1, max(LEAST, round(SHARE * len(bank))))
    found = []
    for places in torch.arange(len(x_NF)).split(BLOCK // len(bank)):
        near = torch.cdist(x_NF[places], x_NF[bank]).topk(count + 1, largest=False)
        own = (bank[near.indices] == places[:, None])[:, :-1].any(1)  # is in the bank itself
        found.append(torch.where(own, near.values[:, -1], near.values[:, -2]))
    return torch.cat(found)


def cluster_count(images: int, classes: int = 0) -> int:
    """The default number of clusters: that of classes, else by the number of images, 2 to 30."""
    return min(images, classes if classes > 1 else max(2, min(30, round((images / 50) ** 0.5))))


def clusters(z_NF: Tensor, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Clusters ``(N,)`` by k-means in a few dimensions, the largest first, and the cosine ``(N,)`` to their centre."""
    x = reduced(z_NF)
    centres = _centres(x, count, seed, starts=3)
    of = torch.cdist(x, centres).argmin(1)
    order = torch.bincount(of, minlength=count).argsort(descending=True, stable=True)
    of = order.argsort()[of]
    means = torch.zeros(count, z_NF.shape[1]).index_add_(0, of, z_NF)
    near = (z_NF * normalize(means, dim=1)[of]).sum(1)
    return of, near


def _centres(x_NF: Tensor, count: int, seed: int, starts: int) -> Tensor:
    """Centres ``(count, F)`` of k-means on the images, or on evenly spaced ones of many."""
    part = x_NF[evenly_spaced(len(x_NF), max(FITTED, 4 * count))]
    of = k_means(part, count, seed, starts)
    sizes = torch.bincount(of, minlength=count).clamp_min(1)
    return torch.zeros(count, part.shape[1]).index_add_(0, of, part) / sizes[:, None]


def choose(z_NF: Tensor, count: int, how: Choice = "typical", seed: int = 0) -> Tensor:
    """``count`` images to label first, in that order.

    ``random`` draws from clusters in turn, so that no kind of image is left out; ``typical`` makes ``count`` clusters
    and takes the image of each that has the nearest neighbours (Hacohen et al., arXiv 2202.02794), the largest cluster
    first.
    """
    count = min(count, len(z_NF))
    x = reduced(z_NF)
    centres = count if how == "typical" else cluster_count(len(x))
    of = torch.cdist(x, _centres(x, centres, seed, starts=1)).argmin(1)
    if how == "random":
        score = torch.rand(len(x), generator=torch.Generator().manual_seed(seed))
    else:
        bank = evenly_spaced(len(x), BANK)
        score = nearest(x[bank], x, min(20, len(bank)))[0].mean(1)
    return _in_turn(of, score)[:count]


def _in_turn(of_N: Tensor, score_N: Tensor) -> Tensor:
    """All images: the one of highest score of each cluster, the largest first, then the second of each, and so on."""
    sizes = torch.bincount(of_N)
    order = score_N.argsort(descending=True, stable=True)
    order = order[of_N[order].argsort(stable=True)]  # by cluster, then by score
    starts = sizes.cumsum(0) - sizes
    turn = torch.arange(len(order)) - starts[of_N[order]]
    by_size = (-sizes).argsort(stable=True).argsort()[of_N[order]]
    return order[(turn * len(sizes) + by_size).argsort(stable=True)]
