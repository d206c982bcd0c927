"""What may be said of several arms: against published worked examples, the t-interval, and arms that are known."""

import numpy as np
import pytest
from scipy import stats

from frossl.evals.ranking import Ranking, agreement, first_reached, half_interval, paired_error, rank, spread_range


def on_all_images(values: dict[str, list[float]]) -> Ranking:
    """The ranking where the held-out images are all there are."""
    return rank(values, {one: {other: 0.0 for other in values if other != one} for one in values}, paired=True)


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
        ranking = on_all_images({str(i): row.tolist() for i, row in enumerate(y)})
        first, *_, last = ranking.means
        wrong += ranking.apart(first, last)
    assert 0.02 < wrong / trials < 0.09


def test_arms_far_apart_are_told_apart():
    ranking = on_all_images({"low": [0.30, 0.31], "high": [0.50, 0.51], "same": [0.505, 0.50]})
    assert ranking.apart("high", "low")
    assert not ranking.apart("high", "same")


def test_without_a_margin_over_images_nothing_is_apart():
    ranking = rank({"low": [0.30, 0.31], "high": [0.50, 0.51]})
    assert ranking.margin is not None
    assert ranking.widest is None
    assert not ranking.apart("high", "low")


def test_two_arms_on_one_seed_have_the_standard_error_of_mcnemar():
    one, other = np.zeros(100, bool), np.zeros(100, bool)
    one[:60], other[15:65] = True, True  # 15 right by one alone, 5 by the other alone
    variance = (15 + 5) / 100 - ((15 - 5) / 100) ** 2
    assert paired_error([one], [other]) == pytest.approx((variance / 99) ** 0.5)
    assert paired_error([one], [one]) == 0


def test_images_that_seeds_share_count_once_and_others_as_often_as_there_are():
    generator = np.random.default_rng(0)
    one, other = (generator.random(500) < share for share in (0.6, 0.5))
    alone = paired_error([one], [other])
    assert paired_error([one, one], [other, other]) == pytest.approx(alone)
    assert paired_error([one, one[:-1]], [other, other[:-1]]) == pytest.approx(alone / 2**0.5, rel=0.01)


def test_a_claim_needs_seeds_and_images():
    values = {"a": [0.516, 0.518], "b": [0.5, 0.5016]}  # 1.6 points, and seeds agree
    errors = {"a": {"b": 0.007}, "b": {"a": 0.007}}
    ranking = rank(values, errors, paired=True)
    assert ranking.margin == pytest.approx(12.706 * 0.0002, rel=1e-3)
    assert ranking.over_images("b", "a") == pytest.approx(1.96 * 0.007, rel=1e-3)
    assert ranking.within("a", "b") == pytest.approx(np.hypot(ranking.margin, ranking.over_images("a", "b")))
    assert ranking.apart("a", "b")
    assert not rank(values, {"a": {"b": 0.009}, "b": {"a": 0.009}}).apart("a", "b")
    assert not rank(values | {"c": [0.3, 0.31]}, errors | {"c": {"a": 0.0, "b": 0.0}}).apart("a", "b")  # more to tell


def test_arms_alike_on_few_images_are_told_apart_as_rarely_as_promised():
    generator = np.random.default_rng(0)
    trials, wrong = 300, 0
    for _ in range(trials):  # each image is hard for one arm or the other, by the same chance, whatever the seed
        p_AN = np.clip(0.5 + 0.3 * generator.standard_normal((2, 200)), 0, 1)
        arms = {str(a): [generator.random(200) < p_AN[a] for _ in range(3)] for a in range(2)}
        error = paired_error(arms["0"], arms["1"])
        values = {arm: [float(right.mean()) for right in of] for arm, of in arms.items()}
        wrong += rank(values, {"0": {"1": error}, "1": {"0": error}}, paired=True).apart("0", "1")
    assert wrong / trials < 0.06


def test_what_a_spread_is_worth_is_chi_squared():
    generator = np.random.default_rng(0)
    spreads = generator.standard_normal((4000, 3)).std(axis=1, ddof=1)
    low, high = spread_range(2)
    assert np.mean((spreads * low < 1) & (spreads * high > 1)) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("values", [{"a": [0.5], "b": [0.9]}, {"a": [0.5, 0.6]}])
def test_without_a_second_seed_or_arm_nothing_is_apart(values):
    ranking = on_all_images(values)
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
