"""Mean cross-entropy over views and the images whose label is known."""

from __future__ import annotations

import numpy as np

from oracles import basics

EMBEDDINGS = ("logits",)
SHARDED = {"logits": 1, "labels": 0}
FEWEST_VIEWS = 1


def other_names_of_classes(random: np.random.Generator, arguments: basics.Arguments) -> basics.Arguments:
    logits, labels = arguments["logits"], arguments["labels"]
    order = random.permutation(logits.shape[-1])
    new_name = np.argsort(order)
    return {"logits": logits[..., order], "labels": np.where(labels == -1, -1, new_name[labels])}


INVARIANCES = {
    "order of images": basics.other_order_of_images(SHARDED),
    "order of views": basics.other_order_of_views("logits"),
    "names of classes": other_names_of_classes,
    "shift of a row's logits": basics.shifted_rows("logits"),
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    labels = random.integers(-1, width, size=images)
    labels[random.integers(images)] = random.integers(width)
    return {"logits": basics.related_views(random, views, images, width), "labels": labels}


def loss(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    losses = []
    for view in logits:
        for row, label in zip(view, labels, strict=True):
            if label != -1:
                losses.append(-float(basics.log_softmax(row)[label]))
    return {"cross_entropy": basics.mean(losses)}


def nothing_known(random: np.random.Generator) -> tuple[basics.Arguments, str]:
    return {"logits": random.normal(size=(2, 5, 3)), "labels": np.full(5, -1)}, "label"


ERRORS = {"no label known": nothing_known}
