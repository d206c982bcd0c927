"""Sinkhorn assignments; the loss itself is in the tests of all losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frossl.losses.swav import sinkhorn
from oracles import swav as oracle


@settings(max_examples=50)
@given(
    batch=st.integers(1, 12),
    prototypes=st.integers(1, 12),
    seed=st.integers(0, 2**32),
    options=st.sampled_from([{}, {"epsilon": 0.3, "iterations": 1}, {"epsilon": 0.1, "iterations": 7}]),
)
def test_assignments_equal_the_oracle(batch, prototypes, seed, options):
    scores = np.tanh(np.random.default_rng(seed).normal(size=(batch, prototypes)))
    got = sinkhorn(torch.from_numpy(scores), **options).numpy()
    np.testing.assert_allclose(got, oracle.sinkhorn(scores, **options), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(got.sum(1), 1, rtol=1e-12)


def test_with_many_iterations_prototypes_share_the_images_evenly():
    scores = torch.rand(24, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(scores, iterations=300).sum(0), torch.full((6,), 4.0, dtype=torch.float64))


def test_scores_that_say_nothing_are_assigned_evenly():
    torch.testing.assert_close(sinkhorn(torch.full((5, 4), 0.3)), torch.full((5, 4), 0.25))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_scores_of_any_size_are_finite_and_sum_to_one(scale, dtype):
    scores = torch.randn(16, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype) * scale
    assignments = sinkhorn(scores)
    assert assignments.dtype == dtype
    torch.testing.assert_close(assignments.sum(1), torch.ones(16, dtype=dtype))


def test_a_prototype_far_from_all_images_is_finite():
    scores = torch.full((6, 3), 1.0)
    scores[:, 1] = -1.0
    scores[0] = -1.0
    assert sinkhorn(scores, epsilon=0.01).isfinite().all()


def test_the_scores_are_left_alone():
    scores = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    before = scores.clone()
    sinkhorn(scores)
    assert torch.equal(scores, before)
