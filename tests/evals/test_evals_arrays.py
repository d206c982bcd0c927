"""Metrics as functions of arrays."""

from __future__ import annotations

import inspect

import numpy as np
import pandas as pd
import pytest
import torch

import frossl.evals
from frossl.core.linalg import NumericalError
from frossl.core.types import Features, UserError
from frossl.evals import METRICS
from frossl.evals.alignment import alignment, uniformity
from frossl.evals.lidar import lidar

NAMES = np.array(["ape", "bee", "cat"])


def blobs(n: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    return torch.eye(3, 8)[labels] + 0.7 * torch.randn(n, 8, generator=generator), labels


@pytest.mark.parametrize("name", ["knn", "linear", "fewshot", "kshot", "ridge", "clustering", "retrieval"])
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
    with pytest.raises(UserError, match="60 rows of training features have 59 labels"):
        frossl.evals.knn(train, y[1:], test, test_y)
    with pytest.raises(UserError, match="labels are needed"):
        frossl.evals.knn(train, None, test, test_y)
    with pytest.raises(UserError, match="names and others numbers"):
        frossl.evals.knn(train, NAMES[y], test, test_y)
    with pytest.raises(UserError, match="no class is in both splits"):
        frossl.evals.knn(train, y, test, test_y + 3)
    with pytest.raises(UserError, match="whole"):
        frossl.evals.knn(train, y + 0.5, test, test_y)
    with pytest.raises(NumericalError, match="not finite"):
        frossl.evals.linear(train / 0, y, test, test_y)


@pytest.mark.parametrize("name", ["knn", "linear", "clustering"])
def test_numbers_of_classes_may_be_of_any_size(name):
    """As identifiers are: a table with a place for each number up to the largest would not fit into memory."""
    (train, y), (test, test_y) = blobs(), blobs(seed=1)
    function = getattr(frossl.evals, name)
    wanted = function(train, y, test, test_y)
    far = 10**12 + 7 * y
    assert function(train, far, test, 10**12 + 7 * test_y) == wanted
    assert function(train, y.double().numpy(), test, test_y.float()) == wanted


def test_metrics_without_labels_take_features_alone():
    features, _ = blobs()
    assert frossl.evals.rank(features.numpy()) == METRICS["rank"].measure(Features(features[:0], features))
    assert frossl.evals.spectrum(features)
    with pytest.raises(TypeError):
        frossl.evals.rank(features, None, features, None)


def test_metrics_of_views_take_the_views_of_each_image():
    features, _ = blobs()
    near = features + 0.01
    found = frossl.evals.alignment([features, near.numpy()])
    views_VNF = torch.stack([features, near])
    assert found["alignment"] == pytest.approx(alignment(views_VNF))
    assert found["uniformity"] == pytest.approx(uniformity(features))
    assert frossl.evals.lidar(views_VNF)["lidar"] == pytest.approx(lidar(views_VNF))
    with pytest.raises(UserError, match="view"):
        frossl.evals.lidar([features])


def test_help_says_what_to_give_and_what_comes_back():
    signature = inspect.signature(frossl.evals.knn)
    assert list(signature.parameters) == ["train", "train_labels", "test", "test_labels", "k", "temperature"]
    assert "names of classes or whole numbers" in frossl.evals.knn.__doc__
    assert "``knn_balanced``" in frossl.evals.knn.__doc__
    assert list(inspect.signature(frossl.evals.rank).parameters) == ["features"]
