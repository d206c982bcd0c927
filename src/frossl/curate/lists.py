"""Which images to look at: those unlike the others, typical and odd ones of clusters, those to label first."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from frossl.curate.neighbours import nearest
from frossl.curate.space import reduced, spread
from frossl.evals.clustering import k_means

BANK = 5000
"""Images that outliers are compared with, spread evenly."""
SHARE = 0.02
"""Share of the images that one may be near to and still be an outlier, so that strangers do not hide each other."""
LEAST = 10
FITTED = 20_000
"""Most images that k-means is fitted on, spread evenly."""
Choice = Literal["random", "typical"]


def outlier_scores(z_NF: Tensor) -> Tensor:
    """How far ``(N,)`` each image is from its surroundings: 1 minus the cosine to its k-th nearest in a bank.

    ``z`` are of length one and not centred (Sun et al., arXiv 2204.06507): images unlike all others have features near
    the mean. ``k`` is :data:`SHARE` of the bank, at least :data:`LEAST`. So a group that is smaller counts as outliers,
    as a folder of another data set would be.
    """
    bank = spread(len(z_NF), BANK)
    count = min(len(bank) - 1, max(LEAST, round(SHARE * len(bank))))
    similarity, index = nearest(z_NF[bank], z_NF, count + 1)
    own = (bank[index] == torch.arange(len(z_NF))[:, None])[:, :-1].any(1)  # is in the bank itself
    return 1 - torch.where(own, similarity[:, -1], similarity[:, -2])


def cluster_count(images: int, classes: int = 0) -> int:
    """How many clusters there are if nothing is said: as many as classes, else by the number of images, 2 to 30."""
    return min(images, classes if classes > 1 else max(2, min(30, round((images / 50) ** 0.5))))


def clusters(z_NF: Tensor, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Clusters ``(N,)`` by k-means in a few dimensions, the largest first, and the cosine ``(N,)`` to their centre."""
    x = reduced(z_NF)
    centres = _centres(x, count, seed, starts=3)
    of = torch.cdist(x, centres).argmin(1)
    order = torch.bincount(of, minlength=count).argsort(descending=True, stable=True)
    of = order.argsort()[of]
    means = torch.zeros(count, z_NF.shape[1]).index_add_(0, of, z_NF)
    near = (z_NF * torch.nn.functional.normalize(means, dim=1)[of]).sum(1)
    return of, near


def _centres(x_NF: Tensor, count: int, seed: int, starts: int) -> Tensor:
    """Means ``(count, F)`` of clusters of the images, or of an even part of them."""
    part = x_NF[spread(len(x_NF), max(FITTED, 4 * count))]
    of = k_means(part, count, seed, starts)
    sizes = torch.bincount(of, minlength=count).clamp_min(1)
    return torch.zeros(count, part.shape[1]).index_add_(0, of, part) / sizes[:, None]


def choose(z_NF: Tensor, count: int, how: Choice = "typical", seed: int = 0) -> Tensor:
    """``count`` images to label first, in the order in which they should be.

    ``random`` draws from clusters in turn, so that no kind of image is left out; ``typical`` takes of as many clusters
    as there are images to choose the one with the nearest neighbours (Hacohen et al., arXiv 2202.02794), the largest
    cluster first.
    """
    count = min(count, len(z_NF))
    generator = torch.Generator().manual_seed(seed)
    x = reduced(z_NF)
    wanted = count if how == "typical" else cluster_count(len(x))
    of = torch.cdist(x, _centres(x, wanted, seed, starts=1)).argmin(1)
    if how == "random":
        score = torch.rand(len(x), generator=generator)
    else:
        bank = spread(len(x), BANK)
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
