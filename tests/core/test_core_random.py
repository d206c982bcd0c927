from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frossl.core.random import uniforms

KEY = st.integers(0, 2**64 - 1)


@given(keys=st.lists(KEY, min_size=1, max_size=5), count=st.integers(1, 50))
def test_uniforms_are_a_pure_function_in_the_half_open_unit_interval(keys, count):
    u = uniforms(count, *keys)
    assert u.shape == (count,)
    assert u.dtype == np.float64
    assert (u >= 0).all()
    assert (u < 1).all()
    assert np.array_equal(u, uniforms(count, *keys))


@given(keys=st.lists(KEY, min_size=1, max_size=4), count=st.integers(1, 20), more=st.integers(1, 20))
def test_asking_for_more_numbers_keeps_the_first_ones(keys, count, more):
    assert np.array_equal(uniforms(count + more, *keys)[:count], uniforms(count, *keys))


@given(seed=KEY, index=st.lists(KEY, min_size=1, max_size=8), views=st.integers(1, 4))
def test_array_keys_give_what_their_elements_give(seed, index, views):
    u = uniforms(6, seed, np.array(index, np.uint64)[None, :], np.arange(views)[:, None])
    assert u.shape == (views, len(index), 6)
    for v in range(views):
        for n, i in enumerate(index):
            assert np.array_equal(u[v, n], uniforms(6, seed, i, v))


@given(keys=st.lists(KEY, min_size=1, max_size=4), which=st.integers(0, 3), other=KEY)
def test_changing_any_key_changes_the_numbers(keys, which, other):
    changed = list(keys)
    changed[which % len(keys)] = other
    assert np.array_equal(uniforms(4, *keys), uniforms(4, *changed)) == (keys == changed)


@given(a=KEY, b=KEY)
def test_keys_do_not_commute(a, b):
    assert np.array_equal(uniforms(4, a, b), uniforms(4, b, a)) == (a == b)


@pytest.mark.parametrize("axis", ["along one stream", "seed", "sample", "view"])
def test_numbers_are_uniform_along_every_axis(axis):
    """Chi-square of 64 bins; mean 63, standard deviation sqrt(126): 5 sigma is 119."""
    n = 20_000
    many = np.arange(n)
    u = {
        "along one stream": lambda: uniforms(n, 3, 1),
        "seed": lambda: uniforms(1, many, 0, 0)[:, 0],
        "sample": lambda: uniforms(1, 3, 0, many, 1)[:, 0],
        "view": lambda: uniforms(1, 3, 0, 5, many)[:, 0],
    }[axis]()
    counts = np.histogram(u, 64, (0, 1))[0]
    assert ((counts - n / 64) ** 2 / (n / 64)).sum() < 63 + 5 * np.sqrt(126)
    assert abs(u.mean() - 0.5) < 5 / np.sqrt(12 * n)
    assert abs(u.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / n)


def test_neighbouring_keys_and_positions_are_uncorrelated():
    """Every pair of columns of (sample, stream position, neighbouring seed, epoch and view) below 5 / sqrt(n)."""
    n = 20_000
    samples = np.arange(n)
    columns = np.concatenate(
        [
            uniforms(4, 0, 0, samples, 0),
            uniforms(2, 1, 0, samples, 0),
            uniforms(2, 0, 1, samples, 0),
            uniforms(2, 0, 0, samples, 1),
            uniforms(2, 0, 0, samples + 1, 0),
        ],
        axis=1,
    )
    correlation = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(correlation).max() < 5 / np.sqrt(n)


def test_no_number_is_drawn_twice_over_a_grid_of_keys():
    u = uniforms(8, np.arange(10)[:, None, None], np.arange(100)[None, :, None], np.arange(8)[None, None, :])
    assert len(np.unique(u)) == u.size


def test_numbers_are_the_documented_splitmix64():
    """Pins the numbers, so that old runs can be shown again: a restatement with Python integers."""
    mask, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    state = 0
    for key in (5, 2, 1234, 1):
        state = mix((state + golden + key) & mask)
    expected = [(mix((state + golden * (1 + i)) & mask) >> 11) / 2**53 for i in range(5)]
    assert uniforms(5, 5, 2, 1234, 1).tolist() == expected
