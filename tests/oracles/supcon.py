"""Supervised contrastive loss, Khosla et al., arXiv 2004.11362, equation 2 (the sum over positives outside)."""

from __future__ import annotations

import numpy as np

from oracles import basics

EMBEDDINGS = ("z",)
SHARDED = {"z": 1, "labels": 0}
OPTIONS = ({}, {"temperature": 0.5})


def other_names_of_classes(random: np.random.Generator, arguments: basics.Arguments) -> basics.Arguments:
    names = random.permutation(100)
    labels = arguments["labels"]
    return arguments | {"labels": np.where(labels == -1, -1, names[labels])}


INVARIANCES = {
    "order of images": basics.other_order_of_images(SHARDED),
    "order of views": basics.other_order_of_views("z"),
    "length of rows": basics.longer_rows("z"),
    "rotation": basics.rotation("z"),
    "names of classes": other_names_of_classes,
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    return {"z": basics.related_views(random, views, images, width), "labels": random.integers(-1, 3, size=images)}


def loss(z: np.ndarray, labels: np.ndarray, *, temperature: float = 0.1) -> dict[str, float]:
    views, images, _ = z.shape
    u = basics.unit_rows(z)
    anchors = [(v, n) for v in range(views) for n in range(images)]
    losses = []
    for anchor in anchors:
        others = {a: basics.dot(u[anchor], u[a]) / temperature for a in anchors if a != anchor}
        log_denominator = basics.log_sum_exp(others.values())
        log_shares = []
        for other, similarity in others.items():
            n, m = anchor[1], other[1]
            if n == m or (labels[n] != -1 and labels[n] == labels[m]):
                log_shares.append(similarity - log_denominator)
        losses.append(-basics.mean(log_shares))
    return {"contrastive": basics.mean(losses)}
