"""What may be said of several arms: against published worked examples, the t-interval, and arms that are known."""

import numpy as np
import pytest
from scipy import stats

from frossl.evals.ranking import agreement, first_reached, half_interval, rank


def test_two_arms_have_the_paired_t_interval():
    one, other = [0.61, 0.64, 0.60, 0.66], [0.58, 0.63, 0.60, 0.62]
    ranking = rank({"other": other, "one": one})
    differences = np.subtract(one, other)
    half = stats.t.ppf(0.975, 3) * differences.std(ddof=1) / 2
    assert list(ranking.means) == ["one", "other"]
    assert ranking.margin == pytest.approx(half, rel=1e-6)


def test_what_a_seed_does_to_all_arms_does_not_count():
    values = {"a": [0.5, 0.6, 0.55], "b": [0.52, 0.59, 0.57], "c": [0.4, 0.49, 0.47]}
    moved = {arm: [v + shift for v, shift in zip(row, (0.0, 0.2, -0.1), strict=True)] for arm, row in values.items()}
    assert rank(moved).margin == pytest.approx(rank(values).margin)


def test_the_margin_is_the_studentised_range_of_a_table():
    values = {"a": [1.0, 2.0, 3.0], "b": [2.0, 3.0, 1.0], "c": [3.0, 1.0, 2.0]}
    squares = 6.0  # no arm and no seed stands out, so all of the spread about 2 is left, with 2 x 2 degrees of freedom
    in_the_table = 5.040  # q(0.05; 3, 4)
    assert rank(values).margin == pytest.approx(in_the_table * (squares / 4 / 3) ** 0.5, rel=1e-3)


def test_arms_alike_are_told_apart_as_rarely_as_promised():
    generator = np.random.default_rng(0)
    trials = 400
    wrong = 0
    for _ in range(trials):
        y = 0.5 + 0.01 * generator.standard_normal((5, 3)) + 0.05 * generator.standard_normal(3)
        ranking = rank({str(i): row.tolist() for i, row in enumerate(y)})
        first, *_, last = ranking.means
        wrong += ranking.apart(first, last)
    assert 0.02 < wrong / trials < 0.09


def test_arms_far_apart_are_told_apart():
    ranking = rank({"low": [0.30, 0.31], "high": [0.50, 0.51], "same": [0.505, 0.50]})
    assert ranking.apart("high", "low")
    assert not ranking.apart("high", "same")


@pytest.mark.parametrize("values", [{"a": [0.5], "b": [0.9]}, {"a": [0.5, 0.6]}])
def test_without_a_second_seed_or_arm_nothing_is_apart(values):
    ranking = rank(values)
    assert ranking.margin is None
    assert not ranking.apart("a", next(reversed(values)))


def test_rank_correlations_counted_by_hand():
    found = agreement([1, 2, 3, 4, 5], [1, 2, 4, 3, 5])
    assert found is not None
    assert found.kendall == pytest.approx((9 - 1) / 10)  # one of ten pairs the other way round
    assert found.spearman == pytest.approx(1 - 6 * 2 / (5 * 24))  # squares of differences of ranks sum to 2
    assert found.arms == 5


def test_the_same_order_of_four_arms_has_the_chance_of_one_in_twelve():
    found = agreement([1, 2, 3, 4], [10, 20, 30, 40])
    assert found is not None
    assert (found.spearman, found.kendall) == (pytest.approx(1.0), pytest.approx(1.0))
    assert found.p == pytest.approx(2 / 24)


@pytest.mark.parametrize("pair", [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2])])
def test_too_few_or_equal_arms_have_no_correlation(pair):
    assert agreement(*pair) is None


def test_a_target_is_reached_between_two_looks():
    assert first_reached([10, 20, 30], [0.2, 0.4, 0.6], 0.5) == (pytest.approx(25), False)
    assert first_reached([10, 20, 30], [0.2, 0.4, 0.3], 0.4) == (pytest.approx(20), False)
    assert first_reached([10, 20], [0.2, 0.3], 0.5) is None
    assert first_reached([], [], 0.5) is None


def test_a_target_that_is_there_at_the_first_look_was_reached_before_unless_all_begins_there():
    assert first_reached([10, 20], [0.6, 0.7], 0.5) == (10, True)
    assert first_reached([0, 20], [0.6, 0.7], 0.5) == (0, False)


def test_the_interval_over_seeds_is_that_of_student():
    values = [0.61, 0.64, 0.60, 0.66]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert half_interval(values) == pytest.approx((high - low) / 2)
    assert half_interval([0.6]) is None
