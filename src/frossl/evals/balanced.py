"""Balanced accuracy: the mean over classes of the share of their images that is answered right."""

from __future__ import annotations

import torch
from torch import Tensor

from frossl.core.types import known
from frossl.evals.interval import Z, with_interval

UNEVEN = 0.6, 2.0
"""Classes are uneven if the largest exceeds the smaller of this fraction and this multiple of an equal fraction."""


def with_balanced(name: str, right_N: Tensor, labels_N: Tensor) -> dict[str, float]:
    """The accuracy ``name`` and ``name_balanced`` of right and wrong answers, each with the ends of its interval."""
    return with_interval(name, right_N) | balanced_accuracy(f"{name}_balanced", right_N, labels_N)


def balanced_accuracy(name: str, right_N: Tensor, labels_N: Tensor) -> dict[str, float]:
    """The mean recall of the classes that have images, and its 95 % interval.

    Wilson's intervals of the recalls are joined by the method of variance estimates recovery (Zou and Donner,
    Statistics in Medicine 2008). ``right_N`` may be shares of right answers, as over several draws.
    """
    count_K = labels_N.bincount().double()
    recall_K = (labels_N.bincount(right_N.double()) / count_K)[count_K > 0]
    n_K = count_K[count_K > 0]
    shrink_K = 1 + Z**2 / n_K
    centre_K = (recall_K + Z**2 / (2 * n_K)) / shrink_K
    margin_K = Z * (recall_K * (1 - recall_K) / n_K + (Z / (2 * n_K)) ** 2).sqrt() / shrink_K
    below_K, above_K = recall_K - (centre_K - margin_K), (centre_K + margin_K) - recall_K
    mean, classes = recall_K.mean().item(), len(n_K)
    low, high = mean - below_K.norm().item() / classes, mean + above_K.norm().item() / classes
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def uneven(largest: float, even: float) -> bool:
    """Whether balanced accuracies decide, by the fraction of the largest class and that of equal classes."""
    most, times = UNEVEN
    return largest > min(most, times * even)


def are_uneven(labels_N: Tensor) -> bool:
    """Whether balanced accuracies decide for images of these classes, -1 where unknown; at least one is known."""
    labels_N = labels_N[known(labels_N)]
    return uneven(largest_share(labels_N), even_share(labels_N))


def largest_share(labels_N: Tensor) -> float:
    """The fraction of images in the largest class."""
    return int(labels_N.bincount().max()) / len(labels_N)


def even_share(labels_N: Tensor) -> float:
    """The fraction of each class if all classes with images had equally many."""
    return 1 / len(torch.unique(labels_N))
