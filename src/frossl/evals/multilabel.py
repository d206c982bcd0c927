"""Several labels an image: one-vs-rest logistic regression, and how well each label's score orders the images."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from frossl.core.types import Features
from frossl.evals import Column, metric
from frossl.evals.interval import jackknife
from frossl.evals.labels import labelled
from frossl.evals.linear import PENALTIES, fit, predict, principal, select_penalty, standardise


def one_vs_rest(scores_NK: Tensor, y_NK: Tensor) -> Tensor:
    """The sum over labels of the mean binary cross-entropy."""
    return binary_cross_entropy_with_logits(scores_NK, y_NK, reduction="sum") / len(y_NK)


def mean_average_precision(scores_NK: Tensor, y_NK: Tensor) -> dict[str, float]:
    """``map``, the mean over labels of the average precision; labels that no image has are left out."""
    from sklearn.metrics import average_precision_score  # takes a second to import

    there = (y_NK == 1).any(0)
    if not there.any():
        return {}
    y, scores = y_NK[:, there].cpu().numpy(), scores_NK[:, there].cpu().numpy()
    return {"map": float(average_precision_score(y, scores, average="macro"))}


@metric(
    "multilabel",
    needs_labels=True,
    targets="multilabel",
    protocol="multilabel: logistic regression of each label on standardised features, all train labels, L-BFGS; L2 "
    f"penalty of up to {len(PENALTIES)} values by the loss on a tenth of the train split; mAP is the mean over labels "
    "of average precision (scikit-learn); interval: jackknife over images",
    columns={"map": Column("mAP", "mean average precision of labels", score="average precision", decides=True)},
    order=20,
    default_of=("evaluate", "compare"),
    glossary={
        "Mean average precision of labels": "For each label, how far up the images that have it stand when all are "
        "ordered by a linear classifier of the features; 1 is perfect, and a guess gets the share of images that have "
        "the label. Every label counts the same."
    },
)
def multilabel(features: Features) -> dict[str, float]:
    """Mean average precision over the labels that a held-out image has, and its interval."""
    x, y, test_x, test_y = labelled(features, "multilabel")
    x, test_x = principal(*standardise(x, test_x))
    y = y.to(x.dtype)

    def negative_loss(x_NF: Tensor, y_NK: Tensor, w: Tensor) -> float:
        return -one_vs_rest(predict(x_NF, w), y_NK).item()

    penalty, w = select_penalty(x, y, y.shape[1], one_vs_rest, negative_loss)
    scores = predict(test_x, fit(x, y, y.shape[1], penalty, w, one_vs_rest))
    return jackknife(lambda kept: mean_average_precision(scores[kept], test_y[kept]), len(test_y))
