"""SimSiam, Chen and He, arXiv 2011.10566, equation 4."""

from __future__ import annotations

import numpy as np

from oracles import basics

EMBEDDINGS = ("prediction", "z")
STOPPED = ("z",)
SHARDED = {"prediction": 1, "z": 1}
INVARIANCES = {
    "order of images": basics.other_order_of_images(SHARDED),
    "order of views": basics.other_order_of_views("prediction", "z"),
    "length of rows": basics.longer_rows("prediction", "z"),
    "rotation": basics.rotation("prediction", "z"),
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    prediction = basics.related_views(random, views, images, width)
    return {"prediction": prediction, "z": basics.some_targets(random, prediction)}


def loss(prediction: np.ndarray, z: np.ndarray) -> dict[str, float]:
    pairs = basics.crossed_pairs(len(prediction), len(z))
    return {"similarity": basics.mean(-basics.mean_cosine(prediction[u], z[g]) for u, g in pairs)}
