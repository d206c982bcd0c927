"""Weighted k-nearest-neighbour classification."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from frossl.core.types import Features, UserError
from frossl.evals import Column, metric
from frossl.evals.balanced import balanced_accuracy, with_balanced
from frossl.evals.labels import class_count, labelled


@torch.no_grad()
def knn_predict(
    bank_NF: Tensor, labels_N: Tensor, queries_BF: Tensor, classes: int, *, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Classes ``(B,)`` voted by the ``k`` nearest of the bank in cosine similarity, each with weight exp(s / T).

    Wu et al., arXiv 1805.01978. Exact: every query meets the whole bank. A bank of fewer than ``k`` votes as a whole.
    Of classes with equal votes the first wins; one that the bank lacks gets none.

    Raises:
        UserError: ``k`` is less than 1.
    """
    if k < 1:
        raise UserError(f"kNN: k must be at least 1, got {k}")
    bank = normalize(bank_NF, dim=1).T.contiguous()
    k = min(k, bank.shape[1])
    predictions = []
    for queries in normalize(queries_BF, dim=1).split(1024):
        similarity, nearest = (queries @ bank).topk(k, dim=1)
        # Shifting every weight of a query by its largest leaves the vote as it is and cannot overflow.
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = weight.new_zeros(len(queries), classes).scatter_add_(1, labels_N[nearest], weight)
        predictions.append(votes.argmax(1))
    return torch.cat(predictions)


def knn_correct(features: Features, *, k: int = 20, temperature: float = 0.07) -> Tensor:
    """Whether each labelled held-out image is classified right by :func:`knn_predict`.

    One of a class that no train image has is not. Classes need no names (:func:`frossl.evals.labels.class_count`).
    """
    x, y, test_x, test_y = labelled(features)
    return knn_predict(x, y, test_x, class_count(features), k=k, temperature=temperature) == test_y


def knn(features: Features, *, k: int = 20, temperature: float = 0.07, balanced: bool = False) -> dict[str, float]:
    """Top-1 accuracy on the held-out images and, if asked for, balanced accuracy."""
    right = knn_correct(features, k=k, temperature=temperature)
    found = {"knn": right.double().mean().item()}
    if balanced:
        found["knn_balanced"] = balanced_accuracy("knn", right, labelled(features)[3])["knn"]
    return found


@metric(
    "knn",
    needs_labels=True,
    protocol="kNN: cosine, k=20, votes weighted exp(s/0.07), whole train split as bank; intervals: Wilson",
    columns={"knn": Column("kNN", score="accuracy", decides=True)},
    order=10,
    default_of=("evaluate", "compare"),
    glossary={
        "kNN": "The k nearest training images vote on the class of an image. Nothing is fitted: it asks whether images "
        "of a class lie together."
    },
)
def knn_with_interval(features: Features, *, k: int = 20, temperature: float = 0.07) -> dict[str, float]:
    """Top-1 and balanced accuracy on the held-out images and their intervals."""
    return with_balanced("knn", knn_correct(features, k=k, temperature=temperature), labelled(features)[3])
