from __future__ import annotations

import math

import pytest
import torch

from frossl.evals.interval import bootstrap_interval, jackknife, random_groups, with_interval, with_jackknife


def answers(n: int, share: float, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(seed)) < share


@pytest.mark.parametrize(("right", "n"), [(800, 1000), (90, 100)])
def test_the_interval_has_the_width_of_the_binomial_law(right, n):
    low, high = bootstrap_interval(torch.arange(n) < right)
    share = right / n
    error = 1.96 * math.sqrt(share * (1 - share) / n)
    assert low == pytest.approx(share - error, abs=0.25 * error)
    assert high == pytest.approx(share + error, abs=0.25 * error)


def test_few_answers_that_are_all_alike_leave_doubt():
    assert bootstrap_interval(torch.ones(4, dtype=torch.bool)) == pytest.approx((4 / (4 + 1.959964**2), 1.0))
    assert bootstrap_interval(torch.zeros(50, dtype=torch.bool)) == pytest.approx((0.0, 1 - 50 / (50 + 1.959964**2)))
    assert bootstrap_interval(torch.ones(50)) == (1.0, 1.0)  # of a figure that is no answer, nothing is known


def test_about_so_many_intervals_hold_the_truth():
    held = 0
    for seed in range(60):
        low, high = bootstrap_interval(answers(200, 0.7, seed), resamples=200, level=0.8)
        held += low <= 0.7 <= high
    assert 0.65 < held / 60 < 0.95


def test_the_seed_decides_and_not_the_global_generator():
    x = answers(100, 0.5)
    one = bootstrap_interval(x, 3)
    torch.manual_seed(5)
    assert bootstrap_interval(x, 3) == one
    assert bootstrap_interval(x, 4) != one


def test_a_wider_level_is_a_wider_interval_and_names_are_those_of_the_value():
    x = answers(300, 0.6)
    narrow, wide = bootstrap_interval(x, level=0.5), bootstrap_interval(x, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    got = with_interval("knn", x)
    assert got == {"knn": x.double().mean().item(), "knn_low": got["knn_low"], "knn_high": got["knn_high"]}
    assert (got["knn_low"], got["knn_high"]) == bootstrap_interval(x)


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
