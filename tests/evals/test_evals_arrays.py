"""Metrics as functions of arrays."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import frossl.evals
from frossl.core.linalg import NumericalError
from frossl.core.types import Features, UserError
from frossl.evals import METRICS

NAMES = np.array(["ape", "bee", "cat"])


def blobs(n: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    return torch.eye(3, 8)[labels] + 0.7 * torch.randn(n, 8, generator=generator), labels


@pytest.mark.parametrize("name", ["knn", "linear", "fewshot", "kshot", "ridge", "clustering", "retrieval", "rank"])
def test_numpy_torch_lists_and_names_give_what_the_metric_gives(name):
    (train, y), (test, test_y) = blobs(), blobs(seed=1)
    function = getattr(frossl.evals, name)
    wanted = METRICS[name].measure(Features(train, test, y, test_y, tuple(NAMES)))
    assert wanted
    assert function(train, y, test, test_y) == wanted
    assert function(train.numpy(), y.numpy(), test.tolist(), test_y.tolist()) == wanted
    assert function(train, NAMES[y.numpy()], test, NAMES[test_y.numpy()].tolist()) == wanted


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_an_unknown_label_is_left_out(missing):
    (train, y), (test, test_y) = blobs(), blobs(seed=1)
    names = NAMES[y.numpy()].astype(object)
    names[::2], names[::4] = None, missing
    wanted = frossl.evals.knn(train[1::2], y[1::2], test, test_y)
    for given in (names, names.tolist()):
        assert frossl.evals.knn(train, given, test, NAMES[test_y.numpy()]) == wanted
    y[::2] = -1
    assert frossl.evals.knn(train, y, test, test_y) == wanted


def test_what_does_not_fit_is_an_error_not_nothing():
    (train, y), (test, test_y) = blobs(), blobs(seed=1)
    with pytest.raises(UserError, match="8 wide, held-out ones 7"):
        frossl.evals.knn(train, y, test[:, :7], test_y)
    with pytest.raises(UserError, match=r"\(N, F\)"):
        frossl.evals.knn(train[0], y, test, test_y)
    with pytest.raises(NumericalError, match="not finite"):
        frossl.evals.linear(train / 0, y, test, test_y)
