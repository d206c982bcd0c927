"""VICReg, Bardes et al., arXiv 2105.04906, equations 1 to 6."""

from __future__ import annotations

import math

import numpy as np

from oracles import basics

EMBEDDINGS = ("z",)
SHARDED = {"z": 1}
OPTIONS = ({}, {"invariance_weight": 10.0, "variance_weight": 12.5, "covariance_weight": 3.0, "epsilon": 1e-2})
INVARIANCES = {
    "order of images": basics.other_order_of_images(SHARDED),
    "order of views": basics.other_order_of_views("z"),
    "order of columns": basics.other_order_of_columns("z"),
    "signs of columns": basics.other_signs_of_columns("z"),
    "shift of columns": basics.shifted_columns("z", alike=True),
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    """Standard deviations on both sides of the hinge at 1, none near it."""
    z = basics.related_views(random, views, images, width)
    return {"z": z / z.std(axis=(0, 1)) * random.choice([0.3, 3.0], size=width)}


def loss(
    z: np.ndarray,
    *,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    epsilon: float = 1e-4,
) -> dict[str, float]:
    views, images, width = z.shape
    variance, covariance = [], []
    for z_ND in z:
        centred = z_ND - z_ND.mean(axis=0)
        hinges, off_diagonal = [], 0.0
        for i in range(width):
            for j in range(width):
                entry = basics.dot(centred[:, i], centred[:, j]) / (images - 1)
                if i == j:
                    hinges.append(max(0.0, 1 - math.sqrt(entry + epsilon)))
                else:
                    off_diagonal += entry**2
        variance.append(basics.mean(hinges))
        covariance.append(off_diagonal / width)
    pairs = basics.unordered_pairs(views)
    return {
        "invariance": invariance_weight * basics.mean(basics.mean_square(z[u] - z[v]) for u, v in pairs),
        "variance": variance_weight * basics.mean(variance[u] + variance[v] for u, v in pairs),
        "covariance": covariance_weight * basics.mean(covariance[u] + covariance[v] for u, v in pairs),
    }
