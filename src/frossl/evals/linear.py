"""Linear probes on cached features: multinomial logistic regression, converged, regularisation by validation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from frossl.core.linalg import decompose
from frossl.core.types import Features
from frossl.evals import Column, metric
from frossl.evals.balanced import balanced_accuracy, with_balanced
from frossl.evals.labels import class_count, draw_labels, labelled, percentage, validation_split

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
SHOTS = 10
KSHOT = (1, 5, 20)
DRAWS = 5
PERCENT = (1.0, 10.0)
FOLDS = 5
FEW = 1000
"""Up to so many labels the penalty is chosen by cross-validation, beyond it by one split."""


def fit(
    x_NF: Tensor,
    y: Tensor,
    classes: int,
    penalty: float,
    start: Tensor | None = None,
    loss_of: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
) -> Tensor:
    """Weights ``(classes, F + 1)``, the last column the bias, that minimise cross-entropy + penalty * |weights|^2.

    ``loss_of`` scores and labels ``y`` is another loss in place of cross-entropy.

    L-BFGS on the full batch with a strong-Wolfe line search, from ``start`` (or zero) until a step lowers the loss by
    less than 1e-6 or 100 steps are done, in coordinates in which the curvature is about one: near-uniform softmax has
    curvature 1/classes times the second moment of a column. Columns should be uncorrelated (:func:`principal`).
    """
    moment = (x_NF * x_NF).mean(0)
    scale = torch.cat([moment / classes + 2 * penalty, moment.new_ones(1) / classes]).rsqrt()
    u = x_NF.new_zeros(classes, x_NF.shape[1] + 1) if start is None else start / scale
    u.requires_grad_()
    optimizer = torch.optim.LBFGS([u], max_iter=100, tolerance_change=1e-6, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        w = scale * u
        loss = loss_of(predict(x_NF, w), y) + penalty * (w[:, :-1] * w[:, :-1]).sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[arg-type]
    return (scale * u).detach()


def predict(x_NF: Tensor, w: Tensor) -> Tensor:
    """Scores ``(N, classes)``."""
    # Contiguous weights give autograd the product order that is three times faster for a tall, thin x.
    return torch.nn.functional.linear(x_NF, w[:, :-1].contiguous(), w[:, -1])


def correct(x_NF: Tensor, y_N: Tensor, w: Tensor) -> Tensor:
    """Whether the highest score of each sample is that of its class."""
    return predict(x_NF, w).argmax(1) == y_N


def accuracy(x_NF: Tensor, y_N: Tensor, w: Tensor) -> float:
    """Share of samples whose highest score is their class."""
    return correct(x_NF, y_N, w).double().mean().item()


def standardise(x_NF: Tensor, *others: Tensor) -> list[Tensor]:
    """All arguments shifted and scaled by the mean and deviation of each column of the first."""
    mean, std = x_NF.mean(0), x_NF.std(0, correction=0)
    scale = torch.where(std > 1e-6 * (mean.abs() + 1e-12), 1 / std.clamp_min(1e-30), 0)
    return [(x - mean) * scale for x in (x_NF, *others)]


def principal(x_NF: Tensor, *others: Tensor) -> list[Tensor]:
    """All arguments rotated to the principal axes of the first, which leaves an L2-penalised fit as it is."""
    axes = decompose(torch.linalg.eigh, (x_NF.T @ x_NF) / len(x_NF))[1]
    return [x @ axes for x in (x_NF, *others)]


def select_penalty(
    x_NF: Tensor,
    y: Tensor,
    classes: int,
    loss_of: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    score: Callable[[Tensor, Tensor, Tensor], float] = accuracy,
) -> tuple[float, Tensor]:
    """The penalty of :data:`PENALTIES` that is best on a random tenth when fitted on the others, and its weights.

    From strong to weak, each fit starting at the last; stops once ``score`` of features, labels and weights has fallen.
    """
    validation, rest = validation_split(len(x_NF), x_NF.device)
    x_rest, y_rest = x_NF[rest], y[rest]
    best, chosen, w = -torch.inf, None, None
    for penalty in PENALTIES:
        w = fit(x_rest, y_rest, classes, penalty, w, loss_of)
        got = score(x_NF[validation], y[validation], w)
        if got < best:
            break
        if got > best:  # the stronger of equals
            best, chosen = got, (penalty, w)
    assert chosen is not None
    return chosen


@metric(
    "linear",
    needs_labels=True,
    protocol="linear: logistic regression on standardised features, all train labels, L-BFGS; "
    "L2 penalty of up to 6 values by a tenth of the train split; intervals: Wilson",
    columns={"linear": Column("linear", "linear probe", score="accuracy", decides=True)},
    order=20,
    default_of=("evaluate", "compare"),
    glossary={
        "Linear probe": "A linear classifier on the features: it asks whether classes can be told apart by simple "
        "rules."
    },
)
def linear(features: Features) -> dict[str, float]:
    """Top-1 and balanced accuracy on the held-out images and their intervals."""
    x, y, test_x, test_y = labelled(features)
    x, test_x = principal(*standardise(x, test_x))
    classes = class_count(features)
    penalty, w = select_penalty(x, y, classes)
    return with_balanced("linear", correct(test_x, test_y, fit(x, y, classes, penalty, w)), test_y)


@metric(
    "fewshot",
    needs_labels=True,
    protocol=f"10 labels: logistic regression on {SHOTS} labelled train images per class, all where there are fewer, "
    f"{DRAWS} draws; L2 penalty from 6 values by 5-fold cross-validation on those labels; mean over draws",
    columns={"linear_10": Column("10 labels", "10 labels per class", score="accuracy", decides=True)},
    order=30,
    default_of=("evaluate",),
    glossary={
        "10 labels per class": "A linear classifier from ten labelled images per class: what you get if labels are "
        "scarce."
    },
)
def fewshot(features: Features, *, shots: int = SHOTS, draws: int = DRAWS) -> dict[str, float]:
    """Mean and standard deviation over draws of the accuracy with ``shots`` labels per class."""
    return _over_draws(f"linear_{shots}", features, lambda images: shots, draws)


@metric(
    "kshot",
    needs_labels=True,
    protocol=f"{', '.join(map(str, KSHOT))} labels: as 10 labels, with so many labelled train images per class",
    columns={
        "linear_1": Column("1 label", "1 label per class", score="accuracy"),
        "linear_5": Column("5 labels", "5 labels per class", score="accuracy"),
        "linear_20": Column("20 labels", "20 labels per class", score="accuracy"),
    },
    order=31,
)
def kshot(features: Features) -> dict[str, float]:
    """:func:`fewshot` with each of :data:`KSHOT` labels per class."""
    return {name: value for shots in KSHOT for name, value in fewshot(features, shots=shots).items()}


@metric(
    "label-efficiency",
    needs_labels=True,
    protocol=f"1 %, 10 % of labels: logistic regression on that share of the train images of each class, at least one, "
    f"{DRAWS} draws; L2 penalty from 6 values, by 5-fold cross-validation on up to {FEW:,} labels, by a tenth of more; "
    "mean over draws",
    columns={
        "linear_1pct": Column("1 % labels", "1 % of the labels", score="accuracy"),
        "linear_10pct": Column("10 % labels", "10 % of the labels", score="accuracy"),
    },
    order=40,
)
def label_efficiency(
    features: Features, *, percent: tuple[float, ...] = PERCENT, draws: int = DRAWS
) -> dict[str, float]:
    """Mean and standard deviation over draws of the accuracy with each ``percent`` of the labels.

    The split by class is that of SimCLR (arXiv 2002.05709, section 4.2), which fine-tunes the encoder; here it is
    frozen. Features are standardised by all train images, as no label is needed for that.
    """
    found = (_over_draws(f"linear_{p:g}pct", features, percentage(p), draws) for p in percent)
    return {name: value for values in found for name, value in values.items()}


def _over_draws(name: str, features: Features, labels: Callable[[int], int], draws: int) -> dict[str, float]:
    """Mean and deviation over draws of the accuracy with ``labels(n)`` random labels of each class of ``n`` images.

    Beside it the balanced accuracy, whose interval is that of the held-out images.
    """
    x, y, test_x, test_y = labelled(features)
    x, test_x = standardise(x, test_x)
    classes = class_count(features)
    got = []
    for draw in range(draws):
        index = draw_labels(y, labels, classes, draw)
        # The solution lies in the span of the labelled samples: in its basis few of them are a small square matrix.
        basis = decompose(partial(torch.linalg.svd, full_matrices=False), x[index])[2].T
        few, few_y = x[index] @ basis, y[index]
        w = fit(few, few_y, classes, *choose_penalty(few, few_y, classes))
        got.append(correct(test_x @ basis, test_y, w).double())
    right_DN, each = torch.stack(got), f"{name}_balanced"
    balanced = [balanced_accuracy(each, right_N, test_y)[each] for right_N in right_DN]
    values = {name: right_DN.mean(1).mean().item()} | balanced_accuracy(each, right_DN.mean(0), test_y)
    for key, of_draws in ((name, right_DN.mean(1)), (each, torch.tensor(balanced, dtype=torch.float64))):
        values[f"{key}_std"] = of_draws.std(correction=1).item() if draws > 1 else 0.0
    return values


def choose_penalty(x: Tensor, y: Tensor, classes: int) -> tuple[float, Tensor | None]:
    """The penalty that is best in cross-validation, or on a tenth of many; the stronger one of equals.

    A single sample, on which nothing can be chosen, gets the strongest. With it come weights to start from, if any.
    Samples are in random order.
    """
    if len(x) > FEW:
        return select_penalty(x, y, classes)
    if len(x) < 2:
        return PENALTIES[0], None
    fold = torch.arange(len(x), device=x.device) % FOLDS
    hits = dict.fromkeys(PENALTIES, 0.0)
    for penalty in PENALTIES:
        for f in range(min(FOLDS, len(x))):
            w = fit(x[fold != f], y[fold != f], classes, penalty)
            hits[penalty] += accuracy(x[fold == f], y[fold == f], w) * int((fold == f).sum())
    return max(PENALTIES, key=hits.__getitem__), None
