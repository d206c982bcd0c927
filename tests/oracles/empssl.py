"""EMP-SSL, Tong et al., arXiv 2304.03977: total coding rate and similarity to the mean view."""

from __future__ import annotations

import math

import numpy as np

from oracles import basics

EMBEDDINGS = ("z",)
SHARDED = {"z": 1}
OPTIONS = ({}, {"invariance_weight": 20.0, "coding_rate_weight": 3.0, "distortion": 0.04})
INVARIANCES = {
    "order of images": basics.other_order_of_images(SHARDED),
    "order of views": basics.other_order_of_views("z"),
    "length of rows": basics.longer_rows("z"),
    "rotation": basics.rotation("z"),
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    return {"z": basics.related_views(random, views, images, width)}


def coding_rate(u_ND: np.ndarray, distortion: float) -> float:
    images, width = u_ND.shape
    moment = sum(np.outer(row, row) for row in u_ND)
    eigenvalues = np.linalg.eigvalsh(np.eye(width) + width / (images * distortion) * moment)
    return 0.5 * math.fsum(math.log(x) for x in eigenvalues)


def loss(
    z: np.ndarray, *, invariance_weight: float = 200.0, coding_rate_weight: float = 1.0, distortion: float = 0.2
) -> dict[str, float]:
    u = basics.unit_rows(z)
    centre = sum(u) / len(u)
    return {
        "invariance": -invariance_weight * basics.mean(basics.mean_cosine(u_ND, centre) for u_ND in u),
        "coding_rate": -coding_rate_weight * basics.mean(coding_rate(u_ND, distortion) for u_ND in u),
    }
