from __future__ import annotations

import pytest
import torch
from small_data import gaussian_classes

from frossl.core.types import Features, UserError
from frossl.evals.retrieval import retrieval, retrieve


def naive(x: torch.Tensor, y: torch.Tensor, asking: range) -> tuple[list[float], list[int]]:
    x = x.double() / x.double().norm(dim=1, keepdim=True)
    precisions, first = [], []
    for i in asking:
        others = sorted((j for j in range(len(x)) if j != i), key=lambda j: -float(x[i] @ x[j]))
        hits = [rank for rank, j in enumerate(others, 1) if y[j] == y[i]]
        if hits:
            precisions.append(sum(found / rank for found, rank in enumerate(hits, 1)) / len(hits))
            first.append(hits[0])
    return precisions, first


def features(x: torch.Tensor, y: torch.Tensor) -> Features:
    return Features(torch.zeros(2, x.shape[1]), x, torch.zeros(2, dtype=torch.long), y, ("a", "b", "c", "d"))


@pytest.mark.parametrize("apart", [0.0, 2.0])
def test_precision_and_first_hit_are_those_of_the_naive_loop(apart):
    x, y = gaussian_classes(15, apart=apart)
    y[7] = 3  # alone in its class
    precisions, first = naive(x, y, range(45))
    got = retrieve(x, y)
    assert got[0].tolist() == pytest.approx(precisions)
    assert got[1].tolist() == first
    assert len(first) == 44


def test_more_images_than_one_block():
    x, y = gaussian_classes(200, apart=1.0)
    asking = range(500, 530)
    assert retrieve(x.double(), y)[0][500:530].tolist() == pytest.approx(naive(x, y, asking)[0])


def test_separate_classes_have_only_their_own_near():
    x, y = gaussian_classes(30, apart=30.0)
    names = ("retrieval_map", "recall_at_1", "recall_at_5", "recall_at_10")
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0)))[0]
    for got in (retrieval(features(x, y)), retrieval(features(1e-3 * x @ turn, y))):
        assert all(got[name] == got[f"{name}_high"] == 1.0 for name in names)


@pytest.mark.parametrize("collapsed", [False, True])
def test_features_that_say_nothing_are_at_chance_even_where_images_lie_by_class(collapsed):
    x, y = gaussian_classes(150, apart=0.0)
    got = retrieval(features(torch.ones_like(x) if collapsed else x, y.sort()[0]))
    assert got["retrieval_map"] == pytest.approx(1 / 3, abs=0.06)
    if not collapsed:  # else all images see the same few first
        assert got["recall_at_1"] == pytest.approx(1 / 3, abs=0.08)
        assert got["recall_at_5"] == pytest.approx(1 - (2 / 3) ** 5, abs=0.08)


def test_of_many_images_a_random_part_is_asked():
    x, y = gaussian_classes(100, apart=1.0)
    whole, part = retrieval(features(x, y)), retrieval(features(x, y), limit=150)
    assert part["retrieval_map"] == pytest.approx(whole["retrieval_map"], abs=0.05)
    assert part != whole


@pytest.mark.parametrize("count", [1, 4])
def test_classes_of_one_image_cannot_be_asked(count):
    x, y = torch.eye(count), torch.arange(count)
    with pytest.raises(UserError, match="at least 2"):
        retrieval(features(x, y))
