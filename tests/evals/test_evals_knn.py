from __future__ import annotations

import math

import pytest
import torch
from small_data import gaussian_classes

from frossl.core.types import Features, UserError
from frossl.evals import METRICS
from frossl.evals.knn import knn, knn_predict


def naive(bank, labels, queries, classes, k, temperature):
    """One query and one neighbour at a time, in float64."""
    bank, queries = bank.double(), queries.double()
    predictions = []
    for q in queries:
        near = sorted(((float(q @ b / (q.norm() * b.norm())), int(y)) for b, y in zip(bank, labels, strict=True)))
        votes = [0.0] * classes
        for similarity, y in near[::-1][:k]:
            votes[y] += math.exp(similarity / temperature)
        predictions.append(max(range(classes), key=votes.__getitem__))
    return predictions


def noise(seed: int, bank: int = 40, queries: int = 30, width: int = 6, classes: int = 4):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (bank,), generator=g)
    return torch.randn(bank, width, generator=g), labels, torch.randn(queries, width, generator=g), classes


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("k", [1, 5, 20, 40, 1000])
def test_votes_are_those_of_the_naive_loop(k, temperature, seed):
    bank, labels, queries, classes = noise(seed)
    got = knn_predict(bank, labels, queries, classes, k=k, temperature=temperature)
    assert got.tolist() == naive(bank, labels, queries, classes, k, temperature)


def test_more_queries_than_one_block_come_back_in_order():
    bank, labels, queries, classes = noise(0, queries=1500)
    whole = knn_predict(bank, labels, queries, classes, k=5)
    assert len(whole) == 1500
    apart = [knn_predict(bank, labels, queries[i : i + 500], classes, k=5) for i in (0, 500, 1000)]
    assert torch.equal(whole, torch.cat(apart))


def test_at_a_small_temperature_the_nearest_one_decides_and_nothing_overflows():
    bank, labels, queries, classes = noise(1)
    sharp = knn_predict(bank, labels, queries, classes, k=20, temperature=1e-3)
    assert sharp.tolist() == naive(bank, labels, queries, classes, 1, 1.0)


def test_at_a_large_temperature_the_majority_decides():
    bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.0, 1.0]])
    labels = torch.tensor([1, 0, 0, 1])
    query = torch.tensor([[1.0, 0.0]])
    assert knn_predict(bank, labels, query, 2, k=3, temperature=1e6).tolist() == [0]
    assert knn_predict(bank, labels, query, 2, k=3, temperature=1e-3).tolist() == [1]


@pytest.mark.parametrize("scale", [1e-4, 0.3, 1e4])
def test_the_length_of_features_does_not_matter(scale):
    bank, labels, queries, classes = noise(2)
    lengths = torch.linspace(0.5, 2, len(bank))[:, None]
    wanted = knn_predict(bank, labels, queries, classes, k=7)
    assert torch.equal(knn_predict(scale * lengths * bank, labels, queries / scale, classes, k=7), wanted)


def test_separate_classes_are_told_apart():
    x, y = gaussian_classes(30, apart=20.0)
    test_x, test_y = gaussian_classes(20, apart=20.0, seed=1)
    assert knn(Features(x, test_x, y, test_y, ("a", "b", "c"))) == {"knn": 1.0}


def test_images_without_a_label_are_left_out_on_both_sides():
    x, y = gaussian_classes(30, apart=20.0)
    test_x, test_y = gaussian_classes(20, apart=20.0, seed=1)
    # Unknown ones lie on the other classes: as neighbours or as questions they would all be wrong.
    bank, labels = torch.cat([x, x[y == 0] + 1e-3]), torch.cat([y, torch.full((30,), -1)])
    asked, truth = torch.cat([test_x, test_x]), torch.cat([test_y, torch.full_like(test_y, -1)])
    assert knn(Features(bank, asked, labels, truth, ("a", "b", "c"))) == {"knn": 1.0}


def test_the_metric_adds_an_interval():
    x, y = gaussian_classes(30, apart=2.0)
    test_x, test_y = gaussian_classes(60, apart=2.0, seed=1)
    f = Features(x, test_x, y, test_y, ("a", "b", "c"))
    got = METRICS["knn"].measure(f)
    assert got.keys() == {f"{name}{end}" for name in ("knn", "knn_balanced") for end in ("", "_low", "_high")}
    assert got["knn"] == knn(f)["knn"]
    assert got["knn_low"] < got["knn"] < got["knn_high"]


def test_a_bank_of_less_than_k_images_votes_as_a_whole():
    x, y = gaussian_classes(1, apart=20.0)  # one image a class
    test_x, test_y = gaussian_classes(20, apart=20.0, seed=1)
    assert knn(Features(x, test_x, y, test_y, ("a", "b", "c")), k=20) == {"knn": 1.0}
    with pytest.raises(UserError, match="k must be at least 1, got 0"):
        knn(Features(x, test_x, y, test_y, ("a", "b", "c")), k=0)


def test_of_equal_votes_the_first_class_wins():
    bank = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    assert knn_predict(bank, torch.tensor([2, 1]), torch.tensor([[1.0, 0.0]]), 3).tolist() == [1]


def test_a_held_out_image_of_a_class_without_train_image_is_wrong_and_the_reverse_does_not_matter():
    x, y = gaussian_classes(30, apart=20.0)
    test_x, test_y = gaussian_classes(20, apart=20.0, seed=1)
    bank, held_out = y != 2, test_y != 2
    lacks = Features(x[bank], test_x, y[bank], test_y, ("a", "b", "c"))
    assert knn(lacks)["knn"] == pytest.approx(2 / 3)
    assert knn(Features(x, test_x[held_out], y, test_y[held_out], ("a", "b", "c"))) == {"knn": 1.0}


@pytest.mark.parametrize("side", ["train", "held-out"])
@pytest.mark.parametrize("labels", [None, torch.full((90,), -1)])
def test_a_side_without_any_label_is_named(side, labels):
    x, y = gaussian_classes(30)
    both = (labels, y) if side == "train" else (y, labels)
    with pytest.raises(UserError, match=f"no image of the {side} split"):
        knn(Features(x, x, *both, ("a", "b", "c")))
