"""Barlow Twins, Zbontar et al., arXiv 2103.03230, equations 1 and 2, on columns standardised as by batch norm."""

from __future__ import annotations

import math

import numpy as np

from oracles import basics

EMBEDDINGS = ("z",)
SHARDED = {"z": 1}
OPTIONS = ({}, {"off_diagonal_weight": 0.0051, "scale": 0.024}, {"off_diagonal_weight": 0.5, "epsilon": 0.0})


def longer_columns(random: np.random.Generator, arguments: basics.Arguments) -> basics.Arguments | None:
    """Columns of any length, if nothing is added to their variance."""
    if arguments.get("epsilon") != 0:
        return None
    return basics.longer_columns("z")(random, arguments)


INVARIANCES = {
    "order of images": basics.other_order_of_images(SHARDED),
    "order of views": basics.other_order_of_views("z"),
    "order of columns": basics.other_order_of_columns("z"),
    "signs of columns": basics.other_signs_of_columns("z"),
    "shift of columns": basics.shifted_columns("z", alike=False),
    "length of columns": longer_columns,
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    return {"z": basics.related_views(random, views, images, width)}


def loss(
    z: np.ndarray, *, off_diagonal_weight: float = 5e-3, scale: float = 1.0, epsilon: float = 1e-5
) -> dict[str, float]:
    views, images, width = z.shape
    s = np.zeros(z.shape)
    for v in range(views):
        for i in range(width):
            centred = z[v, :, i] - basics.mean(z[v, :, i])
            s[v, :, i] = centred / math.sqrt(basics.mean_square(centred) + epsilon)
    on_diagonal, off_diagonal = [], []
    for u, v in basics.unordered_pairs(views):
        on, off = 0.0, 0.0
        for i in range(width):
            for j in range(width):
                correlation = basics.dot(s[u, :, i], s[v, :, j]) / images
                if i == j:
                    on += (1 - correlation) ** 2
                else:
                    off += correlation**2
        on_diagonal.append(scale * on)
        off_diagonal.append(scale * off_diagonal_weight * off)
    return {"on_diagonal": basics.mean(on_diagonal), "off_diagonal": basics.mean(off_diagonal)}
