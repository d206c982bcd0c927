from __future__ import annotations

from itertools import permutations

import pytest
import torch
from small_data import gaussian_classes

from frossl.core.types import Features
from frossl.evals.clustering import clustering as measured
from frossl.evals.clustering import k_means, matched


def features(x: torch.Tensor, y: torch.Tensor) -> Features:
    """Only held-out images are clustered: those of the train split are nonsense."""
    return Features(torch.zeros(2, x.shape[1]), x, torch.zeros(2, dtype=torch.long), y, ("a", "b", "c", "unseen"))


def clustering(features: Features) -> dict[str, float]:
    """The figures without their intervals."""
    return {name: value for name, value in measured(features).items() if not name.endswith(("_low", "_high"))}


def test_separate_classes_are_found_whatever_their_numbers_and_scale():
    x, y = gaussian_classes(30, apart=20.0)
    perfect = {"cluster_accuracy": 1.0, "cluster_nmi": pytest.approx(1.0), "cluster_ari": 1.0}
    assert clustering(features(x, y)) == perfect
    assert clustering(features(1e-3 * x, (y + 1) % 3)) == perfect


def test_two_clusters_turned_are_two_clusters():
    x, y = gaussian_classes(40, width=6, classes=2, apart=15.0)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0]
    assert clustering(features(x @ turn, y))["cluster_ari"] == 1.0


def test_labels_without_a_reason_have_no_information():
    x, y = gaussian_classes(200, apart=0.0)
    got = clustering(features(x, y))
    assert abs(got["cluster_ari"]) < 0.02
    assert got["cluster_nmi"] < 0.02
    assert 1 / 3 <= got["cluster_accuracy"] < 0.42


def test_collapsed_features_are_one_cluster():
    y = torch.tensor([0] * 10 + [1] * 20 + [2] * 10)
    got = clustering(features(torch.ones(40, 5), y))
    assert got == {"cluster_accuracy": 0.5, "cluster_nmi": 0.0, "cluster_ari": 0.0}


def test_images_without_a_label_are_left_out():
    x, y = gaussian_classes(20, apart=20.0)
    junk = torch.randn(30, 12, generator=torch.Generator().manual_seed(3))
    more = features(torch.cat([x, junk]), torch.cat([y, torch.full((30,), -1)]))
    assert clustering(more) == clustering(features(x, y))


@pytest.mark.parametrize("seed", range(4))
def test_the_matching_is_the_best_of_all(seed):
    g = torch.Generator().manual_seed(seed)
    found, y = torch.randint(0, 4, (30,), generator=g), torch.randint(0, 4, (30,), generator=g)
    best = max((torch.tensor(names)[found] == y).double().mean().item() for names in permutations(range(4)))
    assert matched(found, y).double().mean().item() == pytest.approx(best)


def test_the_seed_decides_and_threads_are_left_as_they_were():
    x, _ = gaussian_classes(50, apart=1.0)
    threads = torch.get_num_threads()
    one = k_means(x, 5)
    torch.manual_seed(9)
    assert torch.equal(k_means(x, 5), one)
    assert torch.get_num_threads() == threads
