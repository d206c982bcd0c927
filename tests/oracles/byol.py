"""BYOL, Grill et al., arXiv 2006.07733, equation 2, in both directions."""

from __future__ import annotations

import numpy as np

from oracles import basics

EMBEDDINGS = ("prediction", "target")
STOPPED = ("target",)
SHARDED = {"prediction": 1, "target": 1}
INVARIANCES = {
    "order of images": basics.other_order_of_images(SHARDED),
    "order of views": basics.other_order_of_views("prediction", "target"),
    "length of rows": basics.longer_rows("prediction", "target"),
    "rotation": basics.rotation("prediction", "target"),
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    prediction = basics.related_views(random, views, images, width)
    return {"prediction": prediction, "target": basics.some_targets(random, prediction)}


def loss(prediction: np.ndarray, target: np.ndarray) -> dict[str, float]:
    pairs = basics.crossed_pairs(len(prediction), len(target))
    one_way = [2 - 2 * basics.mean_cosine(prediction[u], target[g]) for u, g in pairs]
    return {"similarity": 2 * basics.mean(one_way)}
