"""Labels that were flipped are suspected, and probabilities from few labels are as sure as they are right."""

from __future__ import annotations

import sys

import pytest
import torch

from frossl.core.types import UserError
from frossl.curate.probe import (
    FOLDS,
    calibration_error,
    folds_of,
    predict_labels,
    probe_space,
    suspicious_labels,
    temperature,
)


def classes(count: int, apart: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 4
    return probe_space(apart * torch.eye(12)[y] + torch.randn(count, 12, generator=generator)), y


@pytest.fixture(autouse=True)
def fewer_penalties(monkeypatch):
    monkeypatch.setattr(sys.modules["frossl.evals.linear"], "PENALTIES", (1e-1, 1e-2))


def test_flipped_labels_come_first_with_the_class_that_they_had():
    x, y = classes(400, 6.0)
    given = y.clone()
    given[:20] = (y[:20] + 1) % 4
    found = suspicious_labels(x, given, 4)
    assert {*found.score.argsort(descending=True)[:20].tolist()} == {*range(20)}
    assert torch.equal(found.believed[:20], y[:20])
    assert int(found.flagged[:20].sum()) > 10  # those surer than is usual for their class
    assert int(found.flagged[20:].sum()) <= 2


def test_a_probability_is_the_share_that_is_right():
    x, y = classes(2000, 1.5)
    few = torch.arange(200)
    said = predict_labels(x, few, y[few], 4)
    sure, best = said.probabilities[200:].max(1)
    right = best == y[200:]
    assert calibration_error(sure, right) < 0.08
    assert abs(said.right.float().mean() - right.float().mean()) < 0.08
    assert 0.3 < right.float().mean() < 0.95  # neither is it trivial


def test_the_temperature_of_scores_that_are_too_sure_brings_them_back():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4000, 3, generator=generator)
    y = torch.multinomial(scores.softmax(1), 1, generator=generator)[:, 0]
    assert temperature(5 * scores, y) == pytest.approx(5, rel=0.1)


def test_calibration_error_is_the_gap():
    assert calibration_error(torch.full((100,), 0.9), torch.arange(100) < 60, bins=1) == pytest.approx(0.3, abs=1e-6)


def test_each_class_is_spread_over_the_folds():
    y = torch.tensor([0] * 10 + [1] * 5)
    fold = folds_of(y)
    assert [int(((fold == f) & (y == 0)).sum()) for f in range(FOLDS)] == [2] * FOLDS
    assert [int(((fold == f) & (y == 1)).sum()) for f in range(FOLDS)] == [1] * FOLDS


@pytest.mark.parametrize("y", [[0, 1] * 4, [0] * 20])
def test_too_few_labels_or_classes_are_refused(y):
    with pytest.raises(UserError, match="at least 10 images and 2 classes"):
        suspicious_labels(torch.randn(len(y), 3), torch.tensor(y), 2)
