"""InfoNCE with a queue of keys per view, MoCo v2+; He et al., arXiv 1911.05722, equation 1, in both directions."""

from __future__ import annotations

import numpy as np

from oracles import basics

EMBEDDINGS = ("query", "key")
STOPPED = ("key", "queue")
SHARDED = {"query": 1, "key": 1}
OPTIONS = ({}, {"temperature": 0.5})


def other_order_in_queue(random: np.random.Generator, arguments: basics.Arguments) -> basics.Arguments:
    queue = arguments["queue"]
    return arguments | {"queue": queue[:, random.permutation(queue.shape[1])]}


INVARIANCES = {
    "order of images": basics.other_order_of_images(SHARDED),
    "order of views": basics.other_order_of_views("query", "key", "queue"),
    "length of rows": basics.longer_rows("query", "key"),
    "rotation": basics.rotation("query", "key", "queue"),
    "order in queue": other_order_in_queue,
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    query = basics.related_views(random, views, images, width)
    key = basics.some_targets(random, query)
    queue = basics.unit_rows(random.normal(size=(len(key), int(random.integers(1, 2 * images)), width)))
    return {"query": query, "key": key, "queue": queue}


def loss(query: np.ndarray, key: np.ndarray, queue: np.ndarray, *, temperature: float = 0.2) -> dict[str, float]:
    q, k = basics.unit_rows(query), basics.unit_rows(key)
    images = query.shape[1]
    losses = []
    for u, g in basics.crossed_pairs(len(query), len(key)):
        for n in range(images):
            positive = basics.dot(q[u, n], k[g, n]) / temperature
            negatives = [basics.dot(q[u, n], old) / temperature for old in queue[g]]
            losses.append(basics.log_sum_exp([positive, *negatives]) - positive)
    return {"contrastive": basics.mean(losses)}


def state(query: np.ndarray, key: np.ndarray, queue: np.ndarray, **options: float) -> dict[str, np.ndarray]:
    length = queue.shape[1]
    new = [[*basics.unit_rows(keys), *old][:length] for keys, old in zip(key, queue, strict=True)]
    return {"queue": np.array(new)}
