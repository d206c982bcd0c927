"""Decoupled contrastive learning, Yeh et al., arXiv 2110.06848, equation 6: no positives below the line."""

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
            positive = [basics.dot(u[v, n], u[w, n]) / temperature for w in range(views) if w != v]
            negative = [
                basics.dot(u[v, n], u[w, m]) / temperature for w in range(views) for m in range(images) if m != n
            ]
            losses.append(-basics.mean(positive) + basics.log_sum_exp(negative))
    return {"contrastive": basics.mean(losses)}


def alone(random: np.random.Generator) -> tuple[basics.Arguments, str]:
    return {"z": random.normal(size=(2, 1, 4))}, "image"


ERRORS = {"one image, which has no negatives": alone}
