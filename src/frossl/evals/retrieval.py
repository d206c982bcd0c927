"""Whether the images nearest to an image are of its class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from frossl.core.types import Features, UserError
from frossl.evals import Column, metric
from frossl.evals.interval import with_interval
from frossl.evals.labels import labelled

LIMIT = 10_000
RANKS = (1, 5, 10)


def retrieve(x_NF: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
    """Average precision, and rank of the first hit, of each image that asks all others: ``(Q,)``, ``(Q,)`` from 1.

    Others are ordered by cosine similarity and relevant if of the same class. An image without a relevant other does
    not ask. Average precision is the mean, over relevant ones, of the precision at their rank.
    """
    x = normalize(x_NF, dim=1)
    n = len(x)
    precision, first = [], []
    for rows in torch.arange(n, device=x.device).split(512):
        similarity = x[rows] @ x.T
        similarity[torch.arange(len(rows), device=x.device), rows] = -torch.inf  # itself comes last
        order = similarity.argsort(dim=1, descending=True, stable=True)[:, :-1]
        hit = labels_N[order] == labels_N[rows, None]
        hit = hit[hit.any(1)]
        rank = torch.arange(1, n, device=x.device, dtype=torch.float64)
        precision.append((hit.cumsum(1) / rank * hit).sum(1) / hit.sum(1))
        first.append(hit.int().argmax(1) + 1)
    return torch.cat(precision), torch.cat(first)


@metric(
    "retrieval",
    needs_labels=True,
    protocol="retrieval: every held-out image asks the others by cosine similarity; mean average precision over all "
    f"ranks, recall@k = share with one of their class among the first k; {LIMIT:,} random images if there are more; "
    "intervals: Student's t, and Wilson for recall",
    columns={"retrieval_map": Column("mAP"), "recall_at_1": Column("recall@1")},
    order=80,
)
def retrieval(features: Features, *, limit: int = LIMIT) -> dict[str, float]:
    """Mean average precision and recall at :data:`RANKS` within the held-out images, with intervals.

    Raises:
        UserError: no class has two held-out images.
    """
    _, _, x, y = labelled(features)
    # In random order: ties keep the order, and images are often stored by class.
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:limit].to(x.device)
    y = y[chosen]
    if len(y.unique()) == len(y):
        raise UserError("retrieval needs a class with at least 2 held-out images, and no class has them")
    precision, first = retrieve(x[chosen], y)
    found = {"retrieval_map": precision} | {f"recall_at_{k}": first <= k for k in RANKS}
    return {key: value for name, of in found.items() for key, value in with_interval(name, of).items()}
