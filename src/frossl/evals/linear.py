"""Linear probes on cached features: multinomial logistic regression, converged, regularisation by validation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from frossl.core.types import Features
from frossl.evals import metric
from frossl.evals.labels import labelled

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SHOTS = 10
DRAWS = 5


def fit(x_NF: Tensor, y_N: Tensor, classes: int, penalty: float, start: Tensor | None = None) -> Tensor:
    """Weights ``(F + 1, classes)``, the last row the bias, that minimise cross-entropy + penalty * |weights|^2.

    L-BFGS on the full batch with a strong-Wolfe line search, at most 100 iterations from ``start`` (or zero).
    """
    w = torch.zeros(x_NF.shape[1] + 1, classes, device=x_NF.device) if start is None else start.clone()
    w.requires_grad_()
    optimizer = torch.optim.LBFGS([w], max_iter=100, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(predict(x_NF, w), y_N) + penalty * (w[:-1] * w[:-1]).sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[arg-type]
    return w.detach()


def predict(x_NF: Tensor, w: Tensor) -> Tensor:
    """Scores ``(N, classes)``."""
    return torch.addmm(w[-1], x_NF, w[:-1])


def accuracy(x_NF: Tensor, y_N: Tensor, w: Tensor) -> float:
    """Share of samples whose highest score is their class."""
    return (predict(x_NF, w).argmax(1) == y_N).double().mean().item()


def standardise(x_NF: Tensor, *others: Tensor) -> list[Tensor]:
    """All arguments shifted and scaled by the mean and deviation of each column of the first."""
    mean, std = x_NF.mean(0), x_NF.std(0, correction=0)
    scale = torch.where(std > 1e-6 * (mean.abs() + 1e-12), 1 / std.clamp_min(1e-30), 0)
    return [(x - mean) * scale for x in (x_NF, *others)]


def select_penalty(x_NF: Tensor, y_N: Tensor, classes: int) -> tuple[float, Tensor]:
    """The penalty of :data:`PENALTIES` that is best on every tenth sample when fitted on the others, and its weights.

    From weak to strong, each fit starting at the last; stops once accuracy has fallen twice.
    """
    order = torch.randperm(len(x_NF), generator=torch.Generator().manual_seed(0)).to(x_NF.device)
    validation, rest = order[: max(1, len(order) // 10)], order[max(1, len(order) // 10) :]
    best, chosen, w = -1.0, (PENALTIES[0], None), None
    falls = 0
    for penalty in reversed(PENALTIES):
        w = fit(x_NF[rest], y_N[rest], classes, penalty, w)
        got = accuracy(x_NF[validation], y_N[validation], w)
        falls = 0 if got > best else falls + 1
        if got > best:
            best, chosen = got, (penalty, w)
        if falls == 2:
            break
    assert chosen[1] is not None
    return chosen


@metric(
    "linear",
    needs_labels=True,
    protocol="linear: logistic regression on standardised features, all train labels, L-BFGS; "
    "L2 penalty from 6 values on a tenth of the train split",
)
def linear(features: Features) -> dict[str, float]:
    """Top-1 accuracy on the held-out images."""
    x, y, test_x, test_y = labelled(features)
    x, test_x = standardise(x, test_x)
    penalty, w = select_penalty(x, y, len(features.classes))
    return {"linear": accuracy(test_x, test_y, fit(x, y, len(features.classes), penalty, w))}


@metric(
    "fewshot",
    needs_labels=True,
    protocol=f"10 labels: logistic regression on {SHOTS} labelled train images per class, {DRAWS} draws; L2 penalty "
    "from 6 values by 5-fold cross-validation on those labels; mean and standard deviation over draws",
)
def fewshot(features: Features, *, shots: int = SHOTS, draws: int = DRAWS) -> dict[str, float]:
    """Mean and standard deviation over draws of the accuracy with ``shots`` labels per class."""
    x, y, test_x, test_y = labelled(features)
    x, test_x = standardise(x, test_x)
    classes = len(features.classes)
    got = []
    for draw in range(draws):
        generator = torch.Generator().manual_seed(draw)
        chosen = []
        for c in range(classes):
            of_class = (y == c).nonzero()[:, 0]
            chosen.append(of_class[torch.randperm(len(of_class), generator=generator)[:shots].to(y.device)])
        index = torch.cat(chosen)
        index = index[torch.randperm(len(index), generator=generator).to(index.device)]
        got.append(accuracy(test_x, test_y, _fit_few(x[index], y[index], classes)))
    values = torch.tensor(got, dtype=torch.float64)
    return {f"linear_{shots}": values.mean().item(), f"linear_{shots}_std": values.std(correction=1).item()}


def _fit_few(x: Tensor, y: Tensor, classes: int, folds: int = 5) -> Tensor:
    """Weights with the penalty that is best in cross-validation; the stronger one of equals."""
    fold = torch.arange(len(x), device=x.device) % folds
    scores = []
    for penalty in PENALTIES:
        hits = 0.0
        for f in range(min(folds, len(x))):
            w = fit(x[fold != f], y[fold != f], classes, penalty)
            hits += accuracy(x[fold == f], y[fold == f], w) * int((fold == f).sum())
        scores.append(hits)
    best = max(range(len(PENALTIES)), key=lambda i: (scores[i], PENALTIES[i]))
    return fit(x, y, classes, PENALTIES[best])
