"""NT-Xent of SimCLR, Chen et al., arXiv 2002.05709, equation 1; several positives are summed inside the logarithm."""

from __future__ import annotations

import numpy as np

from oracles import basics

EMBEDDINGS = ("z",)
SHARDED = {"z": 1}
OPTIONS = ({}, {"temperature": 0.5})
INVARIANCES = {
    "order of images": basics.other_order_of_images(SHARDED),
    "order of views": basics.other_order_of_views("z"),
    "length of rows": basics.longer_rows("z"),
    "rotation": basics.rotation("z"),
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    return {"z": basics.related_views(random, views, images, width)}


def loss(z: np.ndarray, *, temperature: float = 0.1) -> dict[str, float]:
    views, images, _ = z.shape
    u = basics.unit_rows(z)
    losses = []
    for v in range(views):
        for n in range(images):
            positive, negative = [], []
            for w in range(views):
                for m in range(images):
                    similarity = basics.dot(u[v, n], u[w, m]) / temperature
                    if m != n:
                        negative.append(similarity)
                    elif w != v:
                        positive.append(similarity)
            losses.append(basics.log_sum_exp(positive + negative) - basics.log_sum_exp(positive))
    return {"contrastive": basics.mean(losses)}
