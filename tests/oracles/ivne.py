"""I-VNE+, Kim et al., arXiv 2304.01434: von Neumann entropy of the autocorrelation and cosine of the views."""

from __future__ import annotations

import math

import numpy as np

from oracles import basics

EMBEDDINGS = ("z",)
SHARDED = {"z": 1}
OPTIONS = ({}, {"entropy_weight": 0.7, "similarity_weight": 1.3})
INVARIANCES = {
    "order of images": basics.other_order_of_images(SHARDED),
    "order of views": basics.other_order_of_views("z"),
    "length of rows": basics.longer_rows("z"),
    "rotation": basics.rotation("z"),
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    return {"z": basics.related_views(random, views, images, width)}


def entropy(u_ND: np.ndarray) -> float:
    """-sum lambda log lambda over the eigenvalues of the mean of u u'."""
    eigenvalues = np.linalg.eigvalsh(sum(np.outer(row, row) for row in u_ND) / len(u_ND))
    return -math.fsum(x * math.log(x) for x in map(float, eigenvalues) if x > 1e-14)


def loss(z: np.ndarray, *, entropy_weight: float = 1.0, similarity_weight: float = 4.16) -> dict[str, float]:
    u = basics.unit_rows(z)
    entropies = [entropy(u_ND) for u_ND in u]
    pairs = basics.unordered_pairs(len(z))
    return {
        "entropy": -entropy_weight * basics.mean((entropies[a] + entropies[b]) / 2 for a, b in pairs),
        "similarity": -similarity_weight * basics.mean(basics.mean_cosine(u[a], u[b]) for a, b in pairs),
    }
