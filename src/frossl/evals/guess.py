"""The best answer that ignores the images: a score must be above it to mean anything."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from frossl.core.types import Features, Targets
from frossl.data.types import Dataset
from frossl.evals import applicable, measure, scores
from frossl.evals.balanced import even_share, largest_share
from frossl.evals.labels import labelled_images

GUESSES: dict[Targets, str] = {"classes": "largest class", "values": "training mean", "multilabel": "label shares"}
"""The arm of the guess, by what the labels are."""
DESCRIPTIONS = {
    "largest class": "ignores the images: every answer is the largest class of the held-out images",
    "training mean": "ignores the images: every answer is the mean of the training images",
    "label shares": "ignores the images: all are equally likely to have a label",
}


def guess(data: Dataset, arms: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The values of the guess, of those that were measured of ``arms``; nothing where none needs labels."""
    measured = {name for values in arms.values() for name in values}
    if data.targets == "classes":
        if not measured & scores().keys():
            return {}
        labels_N = labelled_images(data.test)[1]
        shares = {"accuracy": largest_share(labels_N), "balanced accuracy": even_share(labels_N)}
        return {name: shares[c.score] for name, c in scores().items() if name in measured and c.score in shares}
    # A probe of features that are always 0.
    nothing = [torch.zeros(len(split), 1) for split in (data.train, data.test)]
    features = Features(nothing[0], nothing[1], data.train.labels, data.test.labels)
    names = [n for n, m in applicable(None, data.targets).items() if m.needs_labels and m.columns.keys() & measured]
    return measure(features, names)
