from __future__ import annotations

import math

import pytest
import torch

from frossl.evals.interval import jackknife, mean_interval, random_groups, with_interval, with_jackknife


@pytest.mark.parametrize(("right", "n"), [(800, 1000), (90, 100)])
def test_the_interval_of_answers_is_that_of_wilson(right, n):
    low, high = mean_interval(torch.arange(n) < right)
    z, share = 1.959964, right / n
    half = z / (n + z**2) * math.sqrt(share * (1 - share) * n + z**2 / 4)
    middle = (right + z**2 / 2) / (n + z**2)
    assert (low, high) == (pytest.approx(middle - half), pytest.approx(middle + half))


def test_few_answers_that_are_all_alike_leave_doubt():
    assert mean_interval(torch.ones(4, dtype=torch.bool)) == pytest.approx((4 / (4 + 1.959964**2), 1.0))
    assert mean_interval(torch.zeros(50, dtype=torch.bool)) == pytest.approx((0.0, 1 - 50 / (50 + 1.959964**2)))


def test_other_values_have_the_interval_of_students_t():
    x = torch.tensor([1.0, 2.0, 4.0, 7.0, 9.0])
    margin = 2.776445 * x.std().item() / math.sqrt(5)  # with 4 degrees of freedom
    assert mean_interval(x) == (pytest.approx(4.6 - margin), pytest.approx(4.6 + margin))
    assert mean_interval(x[:1]) == (1.0, 1.0)  # of a single value, nothing is known


@pytest.mark.parametrize("draw", [lambda x: x < 0.7, lambda x: x + 0.2])
def test_about_so_many_intervals_hold_the_truth(draw):
    held = 0
    for seed in range(200):
        low, high = mean_interval(draw(torch.rand(100, generator=torch.Generator().manual_seed(seed))))
        held += low <= 0.7 <= high
    assert 0.9 < held / 200 < 0.99


def test_names_are_those_of_the_value():
    x = torch.arange(300) < 180
    low, high = mean_interval(x)
    assert with_interval("knn", x) == {"knn": 0.6, "knn_low": low, "knn_high": high}


def test_groups_are_disjoint_of_about_one_size_and_hold_all():
    groups = random_groups(37)
    assert sorted(torch.cat(groups).tolist()) == list(range(37))
    assert {len(g) for g in groups} == {3, 4}
    assert all(torch.equal(a, b) for a, b in zip(groups, random_groups(37), strict=True))
    assert [len(g) for g in random_groups(4)] == [1, 1, 1, 1]


def test_leaving_out_one_by_one_gives_the_standard_error_of_a_mean():
    x = torch.tensor([1.0, 2.0, 4.0, 7.0, 9.0]).double()
    got = jackknife(lambda kept: {"mean": x[kept].mean().item()}, 5)
    margin = 2.776445 * x.std().item() / math.sqrt(5)  # Student's t with 4 degrees of freedom
    assert got["mean"] == pytest.approx(4.6)
    assert (got["mean_low"], got["mean_high"]) == (pytest.approx(4.6 - margin), pytest.approx(4.6 + margin))


def test_the_jackknife_of_a_variance_holds_the_truth_about_so_often():
    held = 0
    for seed in range(100):
        x = torch.randn(300, generator=torch.Generator().manual_seed(seed)).double()
        got = jackknife(lambda kept, x=x: {"v": x[kept].var().item()}, 300)
        held += got["v_low"] <= 1 <= got["v_high"]
    assert 0.88 <= held / 100 <= 1


def test_a_figure_that_a_group_leaves_undefined_has_no_interval():
    assert with_jackknife({"a": 1.0, "b": 2.0}, [{"a": 1.0}, {"a": 1.0, "b": 2.0}]).keys() == {
        "a",
        "a_low",
        "a_high",
        "b",
    }
    assert jackknife(lambda kept: {"a": 1.0}, 1) == {"a": 1.0}
