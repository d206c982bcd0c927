"""SwAV, Caron et al., arXiv 2006.09882: swapped prediction (equation 2) and Sinkhorn assignments (appendix A)."""

from __future__ import annotations

import math

import numpy as np

from oracles import basics

EMBEDDINGS = ("scores",)
STOPPED = ("assignments",)
SHARDED = {"scores": 1, "assignments": 1}
OPTIONS = ({}, {"temperature": 0.5})
INVARIANCES = {
    "order of images": basics.other_order_of_images(SHARDED),
    "order of views": basics.other_order_of_views("scores", "assignments"),
    "order of prototypes": basics.other_order_of_columns("scores", "assignments"),
    "shift of a row's scores": basics.shifted_rows("scores"),
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    scores = np.tanh(basics.related_views(random, views, images, width))
    targets = basics.some_targets(random, scores)
    return {"scores": scores, "assignments": np.stack([sinkhorn(s, epsilon=0.5) for s in targets])}


def loss(scores: np.ndarray, assignments: np.ndarray, *, temperature: float = 0.1) -> dict[str, float]:
    losses = []
    for u, g in basics.crossed_pairs(len(scores), len(assignments)):
        for wanted, given in zip(assignments[g], scores[u], strict=True):
            losses.append(-basics.dot(wanted, basics.log_softmax(given / temperature)))
    return {"swapped": basics.mean(losses)}


def sinkhorn(scores: np.ndarray, *, epsilon: float = 0.05, iterations: int = 3) -> np.ndarray:
    """Assignments ``(B, K)`` of ``(B, K)`` scores, by the paper's loop over its K x B matrix."""
    batch, prototypes = scores.shape
    top = float(scores.max())
    q_KB = np.array([[math.exp((scores[b, k] - top) / epsilon) for b in range(batch)] for k in range(prototypes)])
    q_KB = q_KB / q_KB.sum()
    for _ in range(iterations):
        for k in range(prototypes):
            q_KB[k] *= 1 / prototypes / q_KB[k].sum()
        for b in range(batch):
            q_KB[:, b] *= 1 / batch / q_KB[:, b].sum()
    return q_KB.T * batch
