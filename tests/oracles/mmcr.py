"""Maximum manifold capacity representations, Yerxa et al., arXiv 2303.03307."""

from __future__ import annotations

import numpy as np

from oracles import basics

EMBEDDINGS = ("z",)
SHARDED = {"z": 1}
INVARIANCES = {
    "order of images": basics.other_order_of_images(SHARDED),
    "order of views": basics.other_order_of_views("z"),
    "length of rows": basics.longer_rows("z"),
    "rotation": basics.rotation("z"),
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    return {"z": basics.related_views(random, views, images, width)}


def loss(z: np.ndarray) -> dict[str, float]:
    centroids = sum(basics.unit_rows(z)) / len(z)
    return {"nuclear_norm": -float(np.linalg.svd(centroids, compute_uv=False).sum())}
