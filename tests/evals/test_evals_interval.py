from __future__ import annotations

import math

import pytest
import torch

from frossl.evals.interval import bootstrap_interval, with_interval


def answers(n: int, share: float, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(seed)) < share


@pytest.mark.parametrize(("right", "n"), [(800, 1000), (90, 100)])
def test_the_interval_has_the_width_of_the_binomial_law(right, n):
    low, high = bootstrap_interval(torch.arange(n) < right)
    share = right / n
    error = 1.96 * math.sqrt(share * (1 - share) / n)
    assert low == pytest.approx(share - error, abs=0.25 * error)
    assert high == pytest.approx(share + error, abs=0.25 * error)


@pytest.mark.parametrize("value", [False, True])
def test_answers_that_are_all_alike_leave_no_doubt_to_draw(value):
    assert bootstrap_interval(torch.full((50,), value)) == (float(value), float(value))


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
