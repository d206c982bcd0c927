from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frossl.core.types import UserError
from frossl.losses import LossModule, frossl
from oracles import frossl as oracle

pytestmark = pytest.mark.filterwarnings("ignore:view_scaling='pairs' with:UserWarning")

BOOLS = (False, True)
NORMALISE = ("batch", "sample")
SCALINGS = ("pairs", "mean", "unbiased")
KERNELS = ("linear", "gaussian")
SHAPES = [(3, 5), (4, 4), (5, 3)]  # N < D, N = D, N > D
FORMS = [{"centre": c, "normalise": n} for c in BOOLS for n in NORMALISE]
FORM_NAMES = [f"{'centred' if f['centre'] else 'uncentred'}-{f['normalise']}" for f in FORMS]
forms = pytest.mark.parametrize("form", FORMS, ids=FORM_NAMES)
shapes = pytest.mark.parametrize(("n", "d"), SHAPES)
kernels = pytest.mark.parametrize("kernel", KERNELS)


def sample(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal entries around 1/2: nothing is centred by accident."""
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5).to(dtype)


def value_and_gradient(z: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    z = z.detach().clone().requires_grad_()
    total = frossl(z, **options).total
    (gradient,) = torch.autograd.grad(total, z)
    return total.detach(), gradient


def relative_error(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


def unit(z: Tensor, centre: bool, normalise: str) -> Tensor:
    if centre:
        z = z - z.mean(1, keepdim=True)
    return z / z.norm(dim=1 if normalise == "batch" else 2, keepdim=True)


# Value and gradient against independent statements of them


@settings(max_examples=300)
@given(
    views=st.integers(2, 5),
    n=st.integers(2, 12),
    d=st.integers(1, 12),
    seed=st.integers(0, 2**32),
    scale=st.sampled_from([1e-4, 1.0, 1e4]),
    weight=st.sampled_from([0.0, 0.7, 1.4]),
    view_scaling=st.sampled_from(SCALINGS),
    centre=st.booleans(),
    normalise=st.sampled_from(NORMALISE),
    log=st.booleans(),
    kernel=st.sampled_from(KERNELS),
)
def test_value_and_terms_equal_the_oracle(views, n, d, seed, scale, weight, **options):
    z = (np.random.default_rng(seed).normal(size=(views, n, d)) + 0.5) * scale
    options["invariance_weight"] = weight
    got, wanted = frossl(torch.from_numpy(z), **options), oracle.frossl(z, **options)
    for name in ("entropy", "invariance"):
        assert float(got.terms[name]) == pytest.approx(wanted[name], rel=1e-9, abs=1e-10)
    assert float(got.total) == pytest.approx(wanted["total"], rel=1e-9, abs=1e-10)


@forms
@kernels
@pytest.mark.parametrize("log", BOOLS)
@pytest.mark.parametrize(("views", "n", "d"), [(2, 3, 4), (3, 4, 4), (2, 5, 3)])
def test_gradient_equals_finite_differences_of_the_oracle(views, n, d, form, kernel, log):
    z = sample(views, n, d)
    options = {**form, "kernel": kernel, "log": log, "invariance_weight": 1.3, "view_scaling": "mean"}
    gradient = value_and_gradient(z, **options)[1].numpy()
    np.testing.assert_allclose(gradient, oracle.gradient(z.numpy(), **options), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("log", BOOLS)
@kernels
@forms
@shapes
@pytest.mark.parametrize("views", [2, 3, 5])
def test_gradcheck(views, n, d, form, kernel, log):
    z = sample(views, n, d, seed=views).requires_grad_()
    for scaling in SCALINGS if kernel == "linear" else ("unbiased",):
        options = {**form, "kernel": kernel, "log": log, "view_scaling": scaling, "invariance_weight": 1.3}
        assert torch.autograd.gradcheck(lambda z: frossl(z, **options).total, z)  # noqa: B023


@forms
@pytest.mark.parametrize("factor", [2.5, -1.0, 0.0])
def test_gradient_follows_the_factor_on_the_loss(form, factor):
    z = sample(3, 5, 4).requires_grad_()
    (whole,) = torch.autograd.grad(frossl(z, **form).total * factor, z)
    torch.testing.assert_close(whole, value_and_gradient(z, **form)[1] * factor)


@pytest.mark.parametrize("seed", range(5))
@shapes
def test_centred_two_views_are_the_legacy_loss(n, d, seed):
    a, b = sample(2, n, d, seed=seed).numpy()
    got = float(frossl(torch.from_numpy(np.stack([a, b])), centre=True, invariance_weight=1.4).total)
    assert got == pytest.approx(oracle.legacy_two_view(a, b, 1.4), rel=1e-9)


# The two sides of the moment matrix


@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("log", BOOLS)
@shapes
def test_zero_rows_that_turn_gram_into_covariance_change_nothing(n, d, normalise, log):
    """Uncentred, zero rows add to N alone; with more than D of them the D x D side must give the Gram's numbers."""
    z, more = sample(3, n, d), d + 1
    options = {"centre": False, "normalise": normalise, "log": log}
    value, gradient = value_and_gradient(z, **options)
    padded_value, padded_gradient = value_and_gradient(
        torch.cat([z, z.new_zeros(3, more, d)], 1), invariance_weight=(n + more) / n, **options
    )
    torch.testing.assert_close(padded_value, value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(padded_gradient[:, :n], gradient, rtol=1e-9, atol=1e-12)


@forms
@pytest.mark.parametrize("log", BOOLS)
@shapes
def test_zero_columns_that_turn_covariance_into_gram_change_nothing(n, d, form, log):
    z = sample(3, n, d)
    value, gradient = value_and_gradient(z, **form, log=log)
    padded_value, padded_gradient = value_and_gradient(torch.cat([z, z.new_zeros(3, n, n + 1)], 2), **form, log=log)
    torch.testing.assert_close(padded_value, value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(padded_gradient[..., :d], gradient, rtol=1e-9, atol=1e-12)


# Identities, bounds, symmetries


@settings(max_examples=100)
@given(n=st.integers(2, 12), d=st.integers(1, 12), seed=st.integers(0, 2**32), power=st.integers(1, 7))
@pytest.mark.parametrize("form", FORMS, ids=FORM_NAMES)
def test_entropy_per_view_lies_between_flat_and_rank_one(form, n, d, seed, power):
    z = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, n, d)) ** power)
    per_view = [float(frossl(torch.stack([v, v]), **form).terms["entropy"]) / 2 for v in z]
    assert all(-math.log(min(n, d)) - 1e-12 <= r <= 1e-12 for r in per_view)
    assert float(frossl(z, **form).terms["entropy"]) == pytest.approx(sum(per_view), abs=1e-12)


def hadamard(size: int) -> Tensor:
    h = torch.ones(1, 1, dtype=torch.float64)
    while len(h) < size:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h


@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize(("n", "d"), [(8, 8), (8, 3), (3, 8), (1, 4)])
def test_flat_spectrum_reaches_the_floor(n, d, normalise):
    flat = hadamard(8)[:n, :d]
    entropy = frossl([flat, flat], centre=False, normalise=normalise).terms["entropy"]
    assert float(entropy) == pytest.approx(-2 * math.log(min(n, d)), abs=1e-12)


@pytest.mark.parametrize(("n", "d"), [(8, 7), (8, 3)])
def test_flat_centred_spectrum_reaches_the_floor(n, d):
    flat = hadamard(8)[:n, 1 : d + 1]  # every column but the constant one has mean zero
    entropy = frossl([flat + 3, flat - 5], centre=True).terms["entropy"]
    assert float(entropy) == pytest.approx(-2 * math.log(min(n, d)), abs=1e-12)


@forms
@pytest.mark.parametrize("views", [2, 5])
@pytest.mark.parametrize(("n", "d"), [(6, 4), (4, 6)])
def test_rank_one_shared_by_all_views_is_stationary_with_loss_zero(views, n, d, form):
    samples = sample(n, 1, seed=1) if form["normalise"] == "batch" else torch.ones(n, 1, dtype=torch.float64)
    samples[::2] *= -1
    widths = sample(1, d, seed=2)
    shared = (samples - samples.mean()) @ widths
    scale = sample(views, 1, d, seed=3).abs() + 0.1 if form["normalise"] == "batch" else 1.0
    value, gradient = value_and_gradient(shared.expand(views, n, d) * scale, **form)
    assert abs(float(value)) < 1e-12
    assert gradient.abs().max() < 1e-12


def test_the_constant_direction_is_stationary_with_loss_zero_uncentred():
    constant = sample(1, 1, 5).expand(3, 6, 5)
    value, gradient = value_and_gradient(constant, centre=False)
    assert abs(float(value)) < 1e-12
    assert gradient.abs().max() < 1e-12


@forms
@kernels
@shapes
def test_order_of_samples_columns_and_views_does_not_matter(n, d, form, kernel):
    z = sample(4, n, d)
    value = frossl(z, **form, kernel=kernel).total
    for axis in range(3):
        order = torch.randperm(z.shape[axis], generator=torch.Generator().manual_seed(axis))
        torch.testing.assert_close(frossl(z.index_select(axis, order), **form, kernel=kernel).total, value)


@kernels
@pytest.mark.parametrize("centre", BOOLS)
@shapes
def test_positive_column_scales_do_not_matter(n, d, centre, kernel):
    z = sample(3, n, d)
    scale = torch.logspace(-4, 4, 3 * d, dtype=torch.float64).reshape(3, 1, d)
    torch.testing.assert_close(
        frossl(z * scale, centre=centre, kernel=kernel).total, frossl(z, centre=centre, kernel=kernel).total
    )


@shapes
def test_positive_row_scales_do_not_matter_under_sample_normalisation(n, d):
    z = sample(3, n, d)
    scale = torch.logspace(-4, 4, 3 * n, dtype=torch.float64).reshape(3, n, 1)
    options = {"normalise": "sample", "centre": False}
    torch.testing.assert_close(frossl(z * scale, **options).total, frossl(z, **options).total)


@shapes
@kernels
def test_a_shift_of_the_embedding_does_not_matter_if_and_only_if_centred(n, d, kernel):
    z = sample(3, n, d)
    shifted = z + sample(3, 1, d, seed=4)
    torch.testing.assert_close(frossl(shifted, kernel=kernel).total, frossl(z, kernel=kernel).total)
    uncentred = [float(frossl(x, centre=False, kernel=kernel).total) for x in (z, shifted)]
    assert uncentred[0] != pytest.approx(uncentred[1], abs=1e-3)


@forms
@pytest.mark.parametrize("views", [2, 3, 5])
def test_distance_to_the_mean_view_is_all_pairs(views, form):
    n, weight = 6, 1.4
    z = sample(views, n, 4)
    zh = unit(z, **form)
    pairs = sum(float((a - b).square().sum()) for a, b in itertools.combinations(zh, 2))
    about_mean = views * float((zh - zh.mean(0)).square().sum())
    assert about_mean == pytest.approx(pairs, rel=1e-12)
    got = {s: float(frossl(z, **form, view_scaling=s, invariance_weight=weight).terms["invariance"]) for s in SCALINGS}
    assert got["pairs"] == pytest.approx(weight / n * pairs, rel=1e-12)
    assert got["mean"] == pytest.approx(weight / n * pairs / views, rel=1e-12)
    assert got["unbiased"] == pytest.approx(weight / n * pairs / (views - 1), rel=1e-12)


@kernels
@forms
def test_equal_views_have_no_invariance_term(form, kernel):
    z = sample(6, 4)
    assert float(frossl([z, z, z], **form, kernel=kernel).terms["invariance"]) == pytest.approx(0, abs=1e-15)


@kernels
@forms
def test_weight_multiplies_the_invariance_alone(form, kernel):
    z = sample(3, 6, 4)
    one, seven = (frossl(z, **form, kernel=kernel, invariance_weight=w).terms for w in (1.0, 7.0))
    torch.testing.assert_close(seven["invariance"], 7 * one["invariance"])
    assert seven["entropy"] == one["entropy"]
    none = frossl(z, **form, kernel=kernel, invariance_weight=0.0)
    assert none.total == none.terms["entropy"]


# Zero columns and rows, constants, degenerate batches


@kernels
@pytest.mark.parametrize("centre", BOOLS)
@pytest.mark.parametrize(("n", "d"), [(4, 6), (7, 5)])
def test_a_constant_column_counts_as_zero_when_centred_and_a_zero_column_as_deleted(n, d, centre, kernel):
    """Different columns of different views are dead, so the views keep their places in the mean."""
    z = sample(3, n, d)
    dead = [(0, 1), (1, 3), (2, 3)]
    for v, j in dead:
        z[v, :, j] = 0
    value, gradient = value_and_gradient(z, centre=centre, kernel=kernel)
    assert float(value) == pytest.approx(oracle.frossl(z.numpy(), centre=centre, kernel=kernel)["total"], rel=1e-9)
    for v, j in dead:
        assert (gradient[v, :, j] == 0).all()
    if centre:
        for v, j in dead:
            z[v, :, j] = 1000.3 + v
        constant_value, constant_gradient = value_and_gradient(z, centre=True, kernel=kernel)
        torch.testing.assert_close(constant_value, value)
        torch.testing.assert_close(constant_gradient, gradient)


@kernels
@forms
def test_a_column_that_is_zero_in_every_view_is_a_deleted_column(form, kernel):
    z = sample(3, 6, 5)
    z[..., 2] = 0
    kept = [0, 1, 3, 4]
    value, gradient = value_and_gradient(z, **form, kernel=kernel)
    deleted_value, deleted_gradient = value_and_gradient(z[..., kept], **form, kernel=kernel)
    torch.testing.assert_close(value, deleted_value)
    torch.testing.assert_close(gradient[..., kept], deleted_gradient)


@kernels
@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("n", [3, 7, 100, 257])
@pytest.mark.parametrize("mean", [1000.0, 1000.3, -0.1])
def test_a_constant_column_is_zero_when_centred_also_in_float32(n, mean, normalise, kernel):
    """The rounding of its mean must not be blown up to a column of unit norm."""
    z = sample(2, n, 4, dtype=torch.float32)
    z[..., 1] = mean
    options = {"centre": True, "normalise": normalise, "kernel": kernel}
    value, gradient = value_and_gradient(z, **options)
    z[..., 1] = 0
    zero_value, zero_gradient = value_and_gradient(z, **options)
    assert float(value) == pytest.approx(float(zero_value), rel=1e-5, abs=1e-5)
    assert relative_error(gradient, zero_gradient) < 1e-2
    if normalise == "batch":
        assert (gradient[..., 1] == 0).all()


@pytest.mark.parametrize(("n", "d"), [(4, 6), (7, 5)])
def test_zero_rows_under_sample_normalisation_leave_trace_one_inside_the_log(n, d):
    z = sample(2, n, d)
    z[:, [0, 2]] = 0
    options = {"normalise": "sample", "centre": False}
    value, gradient = value_and_gradient(z, **options)
    assert float(value) == pytest.approx(oracle.frossl(z.numpy(), **options)["total"], rel=1e-9)
    alive = [i for i in range(n) if i not in (0, 2)]
    entropy = frossl(z[:, alive], **options).terms["entropy"]
    torch.testing.assert_close(frossl(z, **options).terms["entropy"], entropy)
    assert (gradient[:, [0, 2]] == 0).all()


@kernels
@pytest.mark.parametrize("centre", BOOLS)
def test_a_zero_row_under_sample_normalisation_has_no_gradient(centre, kernel):
    a, b = (3 * sample(2, 2, 1, 4)).round()
    z = torch.cat([a, b, -a - b, torch.zeros(2, 2, 4)], 1)  # of column mean zero, so centring leaves zero rows zero
    options = {"normalise": "sample", "centre": centre, "kernel": kernel}
    value, gradient = value_and_gradient(z, **options)
    assert float(value) == pytest.approx(oracle.frossl(z.numpy(), **options)["total"], rel=1e-9)
    (from_the_others,) = gradient[:, 3:].unique(dim=1).unbind(1)  # what subtracting the mean passes on
    assert from_the_others.abs().max() < 10 * centre + 1e-15


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@forms
def test_an_all_zero_view_is_a_named_error(form, dtype):
    z = sample(3, 5, 4, dtype=dtype)
    z[1] = 0
    what = "column" if form["normalise"] == "batch" else "row"
    with pytest.raises(UserError, match=f"every {what}.*zero"):
        frossl(z, **form)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("mean", [1.0, 0.1, 1000.3])
def test_a_constant_batch_is_a_named_error_when_centred(n, mean, normalise, dtype):
    z = (torch.linspace(1, 1.7, 4, dtype=torch.float64) * mean).expand(2, n, 4).to(dtype)
    with pytest.raises(UserError, match="zero or constant"):
        frossl(z, centre=True, normalise=normalise)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("normalise", NORMALISE)
def test_a_constant_batch_uncentred_is_finite_with_entropy_zero(normalise, dtype):
    z = sample(2, 1, 4).expand(2, 6, 4).to(dtype)
    loss = frossl(z, centre=False, normalise=normalise)
    assert float(loss.terms["entropy"]) == pytest.approx(0, abs=1e-6)
    assert value_and_gradient(z, centre=False, normalise=normalise)[1].isfinite().all()


@kernels
@forms
def test_duplicated_rows_are_finite_and_equal_the_oracle(form, kernel):
    z = sample(3, 3, 4)[:, [0, 1, 1, 2, 0, 0]]
    value, gradient = value_and_gradient(z, **form, kernel=kernel)
    assert float(value) == pytest.approx(oracle.frossl(z.numpy(), **form, kernel=kernel)["total"], rel=1e-9)
    assert gradient.isfinite().all()


def degenerate(draw: np.random.Generator) -> np.ndarray:
    """A batch with some of: two samples, duplicated rows, constant and zero columns, zero rows, rank one."""
    views, n, d = draw.integers(2, 5), draw.choice([2, 2, 3, 8, 17]), draw.choice([1, 2, 5, 16])
    z = draw.normal(size=(views, n, d)) + draw.choice([0.0, 1.0, 100.0])
    if draw.random() < 0.3:
        z = draw.normal(size=(1, n, 1)) * draw.normal(size=(views, 1, d))
    if draw.random() < 0.3:
        z = z[:, draw.integers(0, n, n)]
    if draw.random() < 0.3:
        z[..., draw.random(d) < 0.5] = draw.choice([0.0, 1.0, 1000.3])
    if draw.random() < 0.2:
        z[:, draw.random(n) < 0.5] = 0
    return z * 10 ** draw.uniform(-4, 4)


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32), form=st.sampled_from(FORMS), kernel=st.sampled_from(KERNELS), log=st.booleans())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_degenerate_batches_are_finite_or_a_named_error(dtype, seed, form, kernel, log):
    z = torch.from_numpy(degenerate(np.random.default_rng(seed))).clamp(-6e4, 6e4).to(dtype)
    try:
        value, gradient = value_and_gradient(z, **form, kernel=kernel, log=log)
    except UserError as error:
        assert "view is zero" in str(error)  # noqa: PT017
        return
    assert value.isfinite()
    assert gradient.dtype == dtype
    centred = z.double() - z.double().mean(1, keepdim=True) if form["centre"] else z.double()
    norm = centred.norm(dim=1 if form["normalise"] == "batch" else 2)
    if dtype != torch.float16 or (norm[norm > 0] > 1e-3).all():  # the gradient is 1 / norm: up to 65504 in float16
        assert gradient.isfinite().all()


@forms
@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_float32_holds_over_thirty_orders_of_magnitude(scale, form):
    z = sample(2, 6, 4, dtype=torch.float32)
    assert float(frossl(z * scale, **form).total) == pytest.approx(float(frossl(z, **form).total), rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["one number", "everything"])
def test_numbers_that_are_not_finite_pass_neither_for_a_loss_nor_for_a_collapse(bad, where):
    z = sample(2, 6, 4, dtype=torch.float32)
    z[(0, 1, 2) if where == "one number" else ...] = bad
    try:
        assert not frossl(z, centre=False).total.isfinite()
    except UserError as error:
        assert "finite" in str(error) or "nan" in str(error).lower()  # noqa: PT017


# Precision


@pytest.mark.parametrize(("n", "d"), [(256, 1024), (512, 256)])
@pytest.mark.parametrize("centre", BOOLS)
def test_float32_error_against_float64(n, d, centre):
    z = sample(2, n, d, dtype=torch.float32)
    value, gradient = value_and_gradient(z, centre=centre)
    exact_value, exact_gradient = value_and_gradient(z.double(), centre=centre)
    # The total is a difference of terms near 6, whose last bit is 5e-7; it may itself be close to zero.
    size = max(abs(term) for term in frossl(z, centre=centre).terms.values())
    assert abs(value - exact_value) <= 1e-6 * size
    assert relative_error(gradient, exact_gradient) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2])
@forms
def test_half_precision_input_is_within_one_percent_of_float64(form, scale, dtype):
    z = sample(3, 32, 16) * scale
    value, gradient = value_and_gradient(z.to(dtype), **form)
    exact_value, exact_gradient = value_and_gradient(z, **form)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert relative_error(value, exact_value) <= 1e-2
    assert relative_error(gradient, exact_gradient) <= 1e-2
    same_input_value = value_and_gradient(z.to(dtype).double(), **form)[0]
    assert relative_error(value, same_input_value) <= 1e-6  # all that is lost is lost in the input


@pytest.mark.parametrize(
    ("dtype", "result"),
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)],
)
@kernels
def test_statistics_are_float32_or_wider(dtype, result, kernel):
    loss = frossl(sample(2, 6, 4, dtype=dtype), kernel=kernel)
    assert {loss.total.dtype, *(t.dtype for t in loss.terms.values())} == {result}


@pytest.mark.parametrize("backward_inside", BOOLS)
@kernels
@pytest.mark.parametrize(("n", "d"), [(32, 16), (16, 32)])
def test_autocast_changes_nothing(n, d, kernel, backward_inside):
    z = sample(2, n, d, dtype=torch.float32)
    value, gradient = value_and_gradient(z, kernel=kernel)
    z.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = frossl(z, kernel=kernel).total
        if backward_inside:
            total.backward()
    if not backward_inside:
        total.backward()
    assert torch.equal(total.detach(), value)
    assert torch.equal(z.grad, gradient)


# Cost


def operations(call) -> dict[str, int]:
    with torch.autograd.profiler.profile() as profile:
        call()
    return {event.key: event.count for event in profile.key_averages()}


def matmuls(counts: dict[str, int]) -> int:
    return sum(counts.get(f"aten::{name}", 0) for name in ("mm", "addmm", "bmm", "baddbmm"))


@pytest.mark.parametrize("centre", BOOLS)
@pytest.mark.parametrize(("n", "d"), [(8, 5), (5, 8)])
def test_one_matmul_forward_one_backward_and_no_loop_over_views(n, d, centre):
    forward, backward = [], []
    for views in (2, 8):
        z = sample(views, n, d).requires_grad_()
        kept = []
        forward.append(operations(lambda: kept.append(frossl(z, centre=centre).total)))  # noqa: B023
        backward.append(operations(lambda: kept[0].backward()))  # noqa: B023
    assert [matmuls(counts) for counts in forward] == [1, 1]
    assert [matmuls(counts) for counts in backward] == [1, 1]
    assert forward[0] == forward[1]
    assert backward[0] == backward[1]


@forms
def test_nothing_waits_for_an_accelerator(form):
    """On a pretended GPU any reading of a value raises; backward is watched on the CPU."""
    fake = pytest.importorskip("torch._subclasses.fake_tensor")
    with fake.FakeTensorMode():
        z = torch.randn(3, 8, 4, device="cuda", requires_grad=True)
        total = frossl(z, **form).total
        assert total.device.type == "cuda"
        with pytest.raises(fake.DataDependentOutputException):
            total.item()
    total = frossl(sample(3, 8, 4).requires_grad_(), **form).total
    counts = operations(lambda: total.backward())
    assert matmuls(counts) == 1
    assert "aten::_local_scalar_dense" not in counts


# What a caller sees


@kernels
@forms
def test_terms_are_detached_and_sum_to_the_total(form, kernel):
    loss = frossl(sample(3, 6, 4).requires_grad_(), **form, kernel=kernel)
    assert set(loss.terms) == {"entropy", "invariance"}
    assert loss.total.requires_grad
    assert not any(term.requires_grad for term in loss.terms.values())
    assert all(term.ndim == 0 for term in (loss.total, *loss.terms.values()))
    torch.testing.assert_close(sum(loss.terms.values()), loss.total.detach())


@kernels
@forms
def test_a_list_of_tensors_is_the_stacked_tensor(form, kernel):
    z = sample(3, 6, 4)
    value, gradient = value_and_gradient(z, **form, kernel=kernel)
    views = [v.clone().requires_grad_() for v in z]
    total = frossl(views, **form, kernel=kernel).total
    assert torch.equal(total.detach(), value)
    assert torch.equal(torch.stack(torch.autograd.grad(total, views)), gradient)


@kernels
@forms
def test_the_input_is_left_alone_and_backward_can_be_repeated(form, kernel):
    z = sample(3, 6, 4).requires_grad_()
    before = z.detach().clone()
    total = frossl(z, **form, kernel=kernel).total
    first, second = (torch.autograd.grad(total, z, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(z.detach(), before)


def test_memory_layout_does_not_matter():
    z = sample(3, 6, 4)
    value, gradient = value_and_gradient(z)
    strided_value, strided_gradient = value_and_gradient(z.permute(1, 2, 0).contiguous().permute(2, 0, 1))
    torch.testing.assert_close(strided_value, value)
    torch.testing.assert_close(strided_gradient, gradient)


@pytest.mark.parametrize(
    ("z", "options", "says"),
    [
        (torch.ones(4, 3), {}, r"\(V, N, D\).*got shape \(4, 3\)"),
        (torch.ones(1, 4, 3), {}, "at least 2 views"),
        ([torch.ones(4, 3), torch.ones(5, 3)], {}, r"one shape.*\(4, 3\), \(5, 3\)"),
        (torch.ones(2, 4, 3, dtype=torch.int32), {}, "got torch.int32"),
        (
            torch.ones(2, 4, 3),
            {"view_scaling": "pair"},
            "view_scaling .*pairs, mean, unbiased.*'pair'",
        ),
        (torch.ones(2, 4, 3), {"normalise": "batches"}, "normalise .*batch, sample.*'batches'"),
        (torch.ones(2, 4, 3), {"kernel": "rbf"}, "kernel .*linear, gaussian.*'rbf'"),
    ],
)
def test_wrong_input_is_named(z, options, says):
    with pytest.raises(UserError, match=says):
        frossl(z, **options)


@pytest.mark.filterwarnings("default")
def test_pairs_warn_above_two_views_and_nothing_else_does():
    with pytest.warns(UserWarning, match="'pairs'.*3 views.*2 times") as caught:
        frossl(sample(3, 6, 4), view_scaling="pairs")
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frossl(sample(2, 6, 4), view_scaling="pairs")
        frossl(sample(3, 6, 4), view_scaling="unbiased")
        frossl(sample(3, 6, 4), view_scaling="mean")


@kernels
@forms
def test_the_module_is_the_function(form, kernel):
    z = sample(3, 6, 4)
    options = {**form, "kernel": kernel, "invariance_weight": 0.7, "view_scaling": "mean", "log": False}
    module = LossModule("frossl", **options)
    assert torch.equal(module(z), frossl(z, **options).total)
    assert torch.equal(module(list(z)), frossl(z, **options).total)
    assert f"kernel='{kernel}'" in repr(module)


def test_the_module_rejects_unknown_names_at_construction():
    with pytest.raises(UserError, match=r"option of frossl.*'invariance'.*mean 'invariance_weight'"):
        LossModule(frossl, invariance=1.0)
    with pytest.raises(UserError, match="vicreg"):
        LossModule("vicregg")


def test_rows_of_the_gaussian_form_are_normalised_by_rows_alone():
    """One column of 1e4 must not have the small entries of its view taken for rounding."""
    z = torch.randn(2, 16, 6, generator=torch.Generator().manual_seed(0))
    z[..., 0] *= 1e4
    options = {"kernel": "gaussian", "normalise": "sample", "centre": True}
    single, double = (frossl(x, **options).total.double() for x in (z, z.double()))
    torch.testing.assert_close(single, double, rtol=1e-5, atol=0)


def test_columns_too_large_to_be_squared_give_nan_not_a_loss_without_them():
    z = torch.randn(2, 16, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(frossl(1e18 * z).total, frossl(z).total)
    for scale in (1e19, 1e20, 1e30):
        assert frossl(scale * z).total.isnan()
