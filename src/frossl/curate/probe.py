"""Cross-validated linear probes with calibrated probabilities: doubtful labels, and predictions from a few labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from frossl.core.types import UserError
from frossl.evals.linear import FEW, choose_penalty, correct, fit, predict, principal, standardise

FOLDS = 5
MANY_DOUBTS = 0.2
"""Share of the labels from which doubts say more about the encoder than about the labels."""
WIDTH = 256
"""Most principal axes that a probe is fitted in."""


def probe_space(vectors_NF: Tensor) -> Tensor:
    """Standardised features of all images on their first principal axes ``(N, WIDTH)``; no label is needed."""
    return principal(*standardise(vectors_NF.float()))[0].flip(1)[:, :WIDTH].contiguous()


def _permutation(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def folds_of(y_N: Tensor, seed: int = 0) -> Tensor:
    """The fold ``(N,)`` of each image, each class evenly over :data:`FOLDS`."""
    order = _permutation(len(y_N), seed)
    order = order[y_N[order].argsort(stable=True)]
    fold = torch.empty(len(y_N), dtype=torch.long)
    fold[order] = torch.arange(len(y_N)) % FOLDS
    return fold


def probe(x_NF: Tensor, y_N: Tensor, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Weights of a logistic regression, and scores ``(N, K)`` of each image by one fitted on the other folds.

    The penalty is chosen once, by cross-validation on the labels, or on a tenth of many.

    Raises:
        UserError: fewer than two classes, or than ten images, are labelled.
    """
    if len(y_N) < 2 * FOLDS or len(y_N.unique()) < 2:
        raise UserError(
            f"{len(y_N)} labelled images of {len(y_N.unique())} classes; a probe needs at least {2 * FOLDS} images "
            "and 2 classes. Label more (frossl explore lists which first)"
        )
    order = _permutation(len(y_N), seed)
    penalty, start = choose_penalty(x_NF[order], y_N[order], classes)
    fold, scores = folds_of(y_N, seed), torch.empty(len(y_N), classes)
    for f in range(FOLDS):
        w = fit(x_NF[fold != f], y_N[fold != f], classes, penalty)
        scores[fold == f] = predict(x_NF[fold == f], w)
    return fit(x_NF, y_N, classes, penalty, start), scores


def temperature(scores_NK: Tensor, y_N: Tensor) -> float:
    """The temperature of the scores that makes the labels most likely (temperature scaling, arXiv 1706.04599)."""
    from scipy.optimize import fminbound

    scores = scores_NK.double()
    log_t: Any = fminbound(lambda log_t: cross_entropy(scores / math.exp(log_t), y_N).item(), -3.0, 5.0)
    return math.exp(log_t)


def right_answers(x_NF: Tensor, y_N: Tensor, classes: int, scores_NK: Tensor, seed: int = 0) -> Tensor:
    """Which images ``(N,)`` are classified right by a probe not fitted on them; ``scores_NK`` are of :func:`probe`.

    With few labels the penalty, too, is chosen without the fold: the penalty of all labels made the accuracy of 100
    labels up to 6 points too high. ``scores_NK`` keep one penalty, as scores of several share no temperature.
    """
    if len(y_N) > FEW:
        return scores_NK.argmax(1) == y_N
    order = _permutation(len(y_N), seed)
    fold, right = folds_of(y_N, seed), torch.empty(len(y_N), dtype=torch.bool)
    for f in range(FOLDS):
        rest = order[fold[order] != f]
        w = fit(x_NF[rest], y_N[rest], classes, choose_penalty(x_NF[rest], y_N[rest], classes)[0])
        right[fold == f] = correct(x_NF[fold == f], y_N[fold == f], w)
    return right


@dataclass(frozen=True, eq=False)
class Suspicion:
    """What a probe fitted on other images says of each label: the ``believed`` class, its probability, and that of the
    ``given`` class.

    ``score`` is the difference of the two, above 0 where the label is doubted; ``flagged`` are those whose believed
    class is as likely as it is on average for images of that class (confident learning, arXiv 1911.00068).
    """

    believed: Tensor
    probability: Tensor
    given: Tensor
    flagged: Tensor

    @property
    def score(self) -> Tensor:
        return self.probability - self.given

    @property
    def doubted(self) -> float:
        """Share of the labels that are doubted."""
        return self.flagged.double().mean().item()


def suspicious_labels(x_NF: Tensor, y_N: Tensor, classes: int, seed: int = 0) -> Suspicion:
    """Compares labels, all known, with calibrated probabilities of :func:`probe`; ``x`` as of :func:`probe_space`.

    ``believed`` is the likeliest class other than the label.
    """
    scores = probe(x_NF, y_N, classes, seed)[1]
    p_NK = (scores / temperature(scores, y_N)).softmax(1)
    given = p_NK.gather(1, y_N[:, None])[:, 0]
    sizes = torch.bincount(y_N, minlength=classes).clamp_min(1)
    usual_K = torch.zeros(classes).index_add_(0, y_N, given) / sizes
    other_NK = p_NK.scatter(1, y_N[:, None], -1.0)
    probability, believed = other_NK.max(1)
    return Suspicion(believed, probability, given, (probability > given) & (probability >= usual_K[believed]))


@dataclass(frozen=True, eq=False)
class Prediction:
    """Probabilities ``(N, K)`` of all images from few labels, and what cross-validation on these says.

    ``right`` and ``sure`` are of each labelled image: whether it was classified right by a probe that did not see its
    label, and the probability it gave.
    """

    probabilities: Tensor
    temperature: float
    right: Tensor
    sure: Tensor


def predict_labels(x_NF: Tensor, labelled: Tensor, y: Tensor, classes: int, seed: int = 0) -> Prediction:
    """Fits a probe on the images at ``labelled``, whose classes are ``y``, and asks it about all.

    Raises:
        UserError: see :func:`probe`.
    """
    x = x_NF[labelled]
    w, scores = probe(x, y, classes, seed)
    t = temperature(scores, y)
    right, sure = right_answers(x, y, classes, scores, seed), (scores / t).softmax(1).amax(1)
    return Prediction((predict(x_NF, w) / t).softmax(1), t, right, sure)


def calibration_error(probability_N: Tensor, right_N: Tensor, bins: int | None = None) -> float:
    """Expected calibration error: mean gap of probability and accuracy in ``bins`` of as many images each.

    Up to 15 bins of at least 20 images, if no number is given.
    """
    bins = bins or max(1, min(15, len(right_N) // 20))
    order = probability_N.argsort()
    parts = [part for part in order.tensor_split(bins) if len(part)]
    gaps = [len(part) * (probability_N[part].mean() - right_N[part].float().mean()).abs() for part in parts]
    return float(sum(gaps)) / len(order)
