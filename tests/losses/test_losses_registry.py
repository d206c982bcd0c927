"""What every registered loss promises, against its oracle; a new loss needs no line here."""

from __future__ import annotations

import inspect
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from loss_cases import CASES, ORACLES, call, case_name, size_of, tensors, with_gradients
from torch import Tensor

import frossl.losses
from frossl.core.types import Loss, UserError
from frossl.losses import LOSSES
from oracles import Arguments, Oracle, load

VIEWS = (2, 3, 5)
SHAPES = ((4, 7), (5, 5), (12, 3))  # N < D, N = D, N > D
FLOAT32 = {"value": 2e-6, "gradient": 1e-5}
"""Errors of float32 relative to float64 on the same numbers, at N and D up to 48."""
FLOAT32_OF: dict[str, dict[str, float]] = {}

cases = pytest.mark.parametrize(("name", "options"), CASES, ids=[case_name(case) for case in CASES])
names = pytest.mark.parametrize("name", ORACLES)
pytestmark = pytest.mark.filterwarnings("error", "ignore:embeddings .* are read as")


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """In the L2 norm; a gradient that is zero but for rounding counts as one of norm 1e-6."""
    return float((got.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1e-6))


def assert_terms(got: dict[str, Tensor], wanted: dict[str, float], rel: float = 1e-9) -> None:
    assert set(got) == set(wanted)
    for term, value in wanted.items():
        assert float(got[term]) == pytest.approx(value, rel=rel, abs=rel * size_of(wanted) + 1e-12), term


@pytest.mark.parametrize("name", LOSSES)
def test_it_has_an_oracle(name):
    load(name)


# Value and gradient


@pytest.mark.parametrize(("images", "width"), SHAPES)
@pytest.mark.parametrize("views", VIEWS)
@cases
def test_terms_equal_the_oracle(name, options, views, images, width):
    oracle = ORACLES[name]
    for seed in range(2):
        arguments = oracle.arguments(seed, views, images, width, **options)
        loss, wanted = call(oracle, tensors(oracle, arguments)), oracle.loss(**arguments)
        assert_terms(loss.terms, wanted)
        assert float(loss.total.detach()) == pytest.approx(sum(wanted.values()), rel=1e-9, abs=1e-9 * size_of(wanted))


@pytest.mark.parametrize(("views", "images", "width"), [(2, 3, 4), (3, 4, 4), (3, 5, 2)])
@cases
def test_gradient_is_that_of_the_value_or_as_the_oracle_says(name, options, views, images, width):
    oracle = ORACLES[name]
    arguments = oracle.arguments(1, views, images, width, **options)
    inputs, differentiable = tensors(oracle, arguments), oracle.differentiable
    wanted = oracle.stopped_gradient(**arguments)
    if wanted is not None:
        (gradient,) = with_gradients(oracle, inputs)[1].values()
        np.testing.assert_allclose(gradient.numpy(), wanted, rtol=1e-6, atol=1e-8)
        return

    def some_multiple(*leaves: Tensor) -> Tensor:
        return -2.5 * call(oracle, inputs | dict(zip(differentiable, leaves, strict=True))).total

    leaves = [inputs[leaf].requires_grad_() for leaf in differentiable]
    assert torch.autograd.gradcheck(
        some_multiple, leaves, rtol=1e-6, atol=2e-8 * max(1, size_of(oracle.loss(**arguments)))
    )


@pytest.mark.parametrize("views", VIEWS)
@names
def test_what_is_stopped_gets_no_gradient(name, views):
    oracle = ORACLES[name]
    inputs = tensors(oracle, oracle.arguments(2, views, 6, 4))
    leaves = [inputs[leaf].requires_grad_() for leaf in (*oracle.differentiable, *oracle.stopped)]
    gradients = torch.autograd.grad(call(oracle, inputs).total, leaves, allow_unused=True)
    through = len(oracle.differentiable)
    assert all(gradient is not None and bool(gradient.any()) for gradient in gradients[:through])
    assert all(gradient is None or not gradient.any() for gradient in gradients[through:])


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), views=st.integers(2, 4), shape=st.sampled_from(SHAPES))
@cases
def test_what_should_not_matter_does_not(name, options, seed, views, shape):
    oracle = ORACLES[name]
    arguments = oracle.arguments(seed, views, *shape, **options)
    loss = call(oracle, tensors(oracle, arguments))
    for what, transformation in oracle.invariances.items():
        changed = transformation(np.random.default_rng(seed + 1), arguments)
        if changed is not None:
            terms = call(oracle, tensors(oracle, changed)).terms
            for term, value in loss.terms.items():
                assert float(terms[term]) == pytest.approx(float(value), rel=1e-8, abs=1e-8 * size_of(loss.terms)), what


# What a caller sees


@cases
def test_terms_are_detached_scalars_that_sum_to_the_total(name, options):
    oracle = ORACLES[name]
    loss, _ = with_gradients(oracle, tensors(oracle, oracle.arguments(3, 3, 6, 4, **options)))
    assert loss.total.requires_grad
    assert not any(term.requires_grad for term in loss.terms.values())
    assert all(value.ndim == 0 for value in (loss.total, *loss.terms.values()))
    torch.testing.assert_close(sum(loss.terms.values()), loss.total.detach())


@pytest.mark.parametrize(("images", "width"), SHAPES)
@cases
def test_new_state_is_returned_and_nothing_is_changed(name, options, images, width):
    oracle = ORACLES[name]
    arguments = oracle.arguments(4, 3, images, width, **options)
    inputs = tensors(oracle, arguments)
    loss, _ = with_gradients(oracle, inputs)
    untouched = tensors(oracle, arguments)
    for key, value in inputs.items():
        assert torch.equal(value, untouched[key]) if isinstance(value, Tensor) else value is untouched[key], key
    wanted = oracle.state(**arguments)
    assert set(loss.state) == set(wanted) <= set(arguments)
    for key, value in loss.state.items():
        assert not value.requires_grad
        assert value.dtype == inputs[key].dtype
        assert value.data_ptr() != inputs[key].data_ptr()
        np.testing.assert_allclose(value.numpy(), wanted[key], rtol=1e-9, atol=1e-12)


@cases
def test_a_list_of_tensors_is_the_stacked_tensor(name, options):
    oracle = ORACLES[name]
    inputs = tensors(oracle, oracle.arguments(5, 3, 6, 4, **options))
    first = oracle.embeddings[0]
    loss, gradients = with_gradients(oracle, inputs)
    for container in (list, tuple):
        views = container(view.clone().requires_grad_() for view in inputs[first])
        other = call(oracle, inputs | {first: views})
        assert torch.equal(other.total.detach(), loss.total.detach())
        assert torch.equal(torch.stack(torch.autograd.grad(other.total, views)), gradients[first])


@cases
def test_what_it_needs_is_made_where_the_embeddings_are(name, options):
    """Constants made elsewhere and copied would make every step wait for an accelerator."""
    oracle = ORACLES[name]
    inputs = tensors(oracle, oracle.arguments(5, 3, 6, 4, **options))
    loss, _ = with_gradients(oracle, inputs)
    with torch.device("meta"):
        other, _ = with_gradients(oracle, inputs)
    assert torch.equal(other.total, loss.total)


@pytest.mark.parametrize("what", ["one view", "one view in a list", "no view", "unequal views", "integers"])
@pytest.mark.parametrize("name", [name for name, oracle in ORACLES.items() if oracle.fewest_views > 1])
def test_views_that_are_none_are_a_named_error(name, what):
    oracle = ORACLES[name]
    inputs = tensors(oracle, oracle.arguments(6, 2, 6, 4))
    x = inputs[oracle.embeddings[0]]
    wrong = {
        "one view": x[:1],
        "one view in a list": [x[0]],
        "no view": [],
        "unequal views": [x[0], x[1, :-1]],
        "integers": x.long(),
    }[what]
    with pytest.raises(UserError):
        call(oracle, inputs | {oracle.embeddings[0]: wrong})


@names
def test_one_tensor_with_more_views_than_images_is_warned_of_where_it_is_given(name):
    oracle = ORACLES[name]
    inputs = tensors(oracle, oracle.arguments(5, 4, 3, 2, **oracle.options[0]))
    says = r"\(4, 3, 2\) are read as 4 views of 3 images.*transpose\(0, 1\).*a list"
    with pytest.warns(UserWarning, match=says) as said:
        call(oracle, inputs)
    assert [Path(one.filename).name for one in said] == ["loss_cases.py"]  # which calls the loss


@names
def test_a_list_of_views_and_one_tensor_of_as_many_images_are_not_warned_of(name):
    oracle = ORACLES[name]
    inputs = tensors(oracle, oracle.arguments(5, 4, 3, 2, **oracle.options[0]))
    first = oracle.embeddings[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(oracle, inputs | {first: list(inputs[first])})
        call(oracle, tensors(oracle, oracle.arguments(5, 4, 4, 2, **oracle.options[0])))


def test_a_criterion_is_warned_of_at_its_call_and_once():
    criterion, z = frossl.losses.LossModule("frossl"), torch.randn(5, 3, 4)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(3):
            criterion(z)
    assert [one.filename for one in said] == [__file__]


TARGETS = [(name, target) for name, oracle in ORACLES.items() for target in oracle.embeddings[1:]]


@pytest.mark.parametrize("what", ["none", "an empty list", "unequal shapes", "no tensors"])
@pytest.mark.parametrize(("name", "target"), TARGETS)
def test_targets_that_are_none_are_a_named_error(name, target, what):
    oracle = ORACLES[name]
    inputs = tensors(oracle, oracle.arguments(6, 2, 6, 4))
    x = inputs[target]
    wrong = {
        "none": None,
        "an empty list": [],
        "unequal shapes": [x[0], x[0, :-1]],
        "no tensors": x.numpy(),
    }[what]
    with pytest.raises(UserError):
        call(oracle, inputs | {target: wrong})


ERRORS = [(name, what) for name, oracle in ORACLES.items() for what in oracle.errors]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "what"), ERRORS, ids=[f"{name}: {what}" for name, what in ERRORS])
def test_errors_are_named(name, what, dtype):
    oracle = ORACLES[name]
    arguments, pattern = oracle.errors[what](np.random.default_rng(7))
    with pytest.raises(UserError, match=pattern):
        call(oracle, tensors(oracle, arguments, dtype))


# Precision


def upcast(inputs: dict[str, Any]) -> dict[str, Any]:
    """The same numbers in float64."""
    return {
        key: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for key, value in inputs.items()
    }


def assert_totals(got: Loss, wanted: Loss, bound: float) -> None:
    """Relative to the terms, or to 1 where a term is the small difference of numbers of order 1 and above."""
    assert abs(float(got.total.detach()) - float(wanted.total.detach())) <= bound * max(1, size_of(wanted.terms))


@pytest.mark.parametrize(("one", "rest"), [(torch.float64, torch.float32), (torch.float32, torch.float64)], ids=str)
@cases
def test_embeddings_may_be_more_or_less_precise_than_what_they_meet(name, options, one, rest):
    """Queues, centres and statistics are float32 or float64 whatever the network computes in."""
    oracle = ORACLES[name]
    inputs = upcast(tensors(oracle, oracle.arguments(5, 3, 6, 4, **options)))
    wanted, _ = with_gradients(oracle, inputs)
    mixed = {
        key: value.to(one if key == oracle.embeddings[0] else rest)
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
        for key, value in inputs.items()
    }
    got, _ = with_gradients(oracle, mixed)
    assert_totals(got, wanted, 1e-5)


@pytest.mark.parametrize(("images", "width"), [(16, 48), (48, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@cases
def test_only_the_rounding_of_the_input_is_lost(name, options, dtype, images, width):
    oracle = ORACLES[name]
    bound = FLOAT32_OF.get(name, FLOAT32)
    arguments = oracle.arguments(8, 3, images, width, **options)
    inputs = tensors(oracle, arguments, dtype)
    loss, gradients = with_gradients(oracle, inputs)
    exact, exact_gradients = with_gradients(oracle, upcast(inputs))
    assert {loss.total.dtype, *(term.dtype for term in loss.terms.values())} == {torch.float32}
    assert_totals(loss, exact, bound["value"])
    for key, gradient in gradients.items():
        assert gradient.dtype == dtype
        wanted = bound["gradient"] if dtype == torch.float32 else 4e-3  # a bfloat16 gradient is itself rounded
        assert relative_error(gradient, exact_gradients[key]) <= wanted
    assert_totals(loss, call(oracle, tensors(oracle, arguments)), 1e-5 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@cases
def test_autocast_changes_nothing(name, options, dtype):
    oracle = ORACLES[name]
    inputs = tensors(oracle, oracle.arguments(9, 3, 12, 6, **options), dtype)
    loss, gradients = with_gradients(oracle, inputs)
    leaves = [inputs[key].requires_grad_() for key in oracle.differentiable]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = call(oracle, inputs)
    gradients_inside = dict(zip(oracle.differentiable, torch.autograd.grad(inside.total, leaves), strict=True))
    assert torch.equal(inside.total, loss.total)
    assert all(torch.equal(gradients_inside[key], gradients[key]) for key in gradients)
    for key, value in loss.state.items():
        assert torch.equal(inside.state[key], value)
        assert value.dtype == inputs[key].dtype


# Degenerate batches


def zero_rows(random: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return x * (random.random(x.shape[:-1]) < 0.75)[..., None]


def same_zero_rows(random: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return x * (random.random(x.shape[1]) < 0.75)[:, None]


def all_zero(random: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return np.zeros_like(x)


def zero_columns(random: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return x * (random.random(x.shape[2]) < 0.5)


def constant_batch(random: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x[:, :1], x.shape).copy()


def constant(random: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x[:1, :1], x.shape).copy()


def duplicated_rows(random: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return x[:, random.integers(0, x.shape[1], x.shape[1])]


def identical_views(random: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x[:1], x.shape).copy()


def opposite_views(random: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Whose mean is zero if their number is even."""
    return x[:1] * np.where(np.arange(len(x)) % 2, -1, 1)[:, None, None]


def one_huge_value(random: np.random.Generator, x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[tuple(random.integers(0, x.shape))] = 1e6
    return x


def rank_one(random: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return x[:1, :, :1] * x[:1, :1]


def tiny(random: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return x * 1e-30


def large(random: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return x * 100


MILD = [zero_rows, same_zero_rows, duplicated_rows, identical_views, opposite_views]
SPOILERS = [*MILD, all_zero, zero_columns, constant_batch, constant, one_huge_value, rank_one, tiny, large]


def spoiled(oracle: Oracle, arguments: Arguments, seed: int, how: list[Any]) -> Arguments:
    """``how`` done to all embeddings, one after the other, alike where shapes are alike."""
    for spoil in how:
        arguments = arguments | {
            key: np.ascontiguousarray(np.broadcast_to(spoil(np.random.default_rng(seed), x), x.shape))
            for key, x in ((key, arguments[key]) for key in oracle.embeddings)
        }
    return arguments


@given(  # 100 times; 500 with --hypothesis-profile long
    seed=st.integers(0, 2**32),
    views=st.integers(2, 4),
    images=st.sampled_from([1, 2, 2, 3, 8, 17]),
    width=st.sampled_from([1, 2, 5, 16]),
    how=st.lists(st.sampled_from(SPOILERS), min_size=1, max_size=2),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    option=st.integers(0, 100),
)
@names
def test_degenerate_batches_are_finite_or_a_named_error(name, seed, views, images, width, how, dtype, option):
    oracle = ORACLES[name]
    options = oracle.options[option % len(oracle.options)]
    arguments = spoiled(oracle, oracle.arguments(seed, views, images, width, **options), seed, how)
    inputs = tensors(oracle, arguments, dtype)
    assume(all(x.isfinite().all() for x in inputs.values() if isinstance(x, Tensor)))  # 1e6 is more than float16 has
    try:
        loss, gradients = with_gradients(oracle, inputs)
    except UserError:
        return
    assert loss.total.isfinite()
    assert all(value.isfinite().all() for value in (*loss.terms.values(), *loss.state.values()))
    if not all(gradient.isfinite().all() for gradient in gradients.values()):  # then float16 has no such number
        wide = {k: v.float() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in inputs.items()}
        _, wanted = with_gradients(oracle, wide)
        for key, gradient in gradients.items():
            assert gradient.isfinite().logical_or(wanted[key].abs() > torch.finfo(dtype).max).all()
            assert wanted[key].isfinite().all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@names
def test_embeddings_that_are_not_finite_end_in_a_loss_that_is_not_or_a_named_error(name, value):
    oracle = ORACLES[name]
    for views, images, width in ((2, 12, 4), (2, 5, 4), (2, 4, 12)):  # whichever decomposition is taken
        inputs = tensors(oracle, oracle.arguments(3, views, images, width))
        inputs[oracle.embeddings[0]][0, 1, 0] = value
        try:
            loss, gradients = with_gradients(oracle, inputs)
        except UserError:
            continue
        finite = loss.total.isfinite() and all(gradient.isfinite().all() for gradient in gradients.values())
        assert not finite, (views, images, width)


@pytest.mark.parametrize("shape", [(2, 16, 4), (2, 5, 5)])
@pytest.mark.parametrize("name", ["ivne", "mmcr"])
def test_a_decomposition_that_does_not_converge_ends_in_a_loss_that_is_not_finite(name, shape, monkeypatch):
    def fails(matrix):
        raise torch.linalg.LinAlgError("the algorithm failed to converge")

    for decomposition in ("eigvalsh", "svdvals"):
        monkeypatch.setattr(torch.linalg, decomposition, fails)
    z = torch.randn(shape, requires_grad=True)
    loss = LOSSES[name](z)
    assert loss.total.isnan()
    loss.total.backward()  # as the step does before its guard looks


@pytest.mark.parametrize("spoil", MILD, ids=lambda spoil: spoil.__name__)
@cases
def test_mildly_degenerate_batches_equal_the_oracle(name, options, spoil):
    oracle = ORACLES[name]
    for seed in range(2):
        arguments = spoiled(oracle, oracle.arguments(seed, 4, 16, 2, **options), seed, [spoil])
        assert_terms(call(oracle, tensors(oracle, arguments)).terms, oracle.loss(**arguments), rel=1e-7)


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_loss_is_exported_under_its_name(name):
    """The module of the same name does not hide it."""
    assert getattr(frossl.losses, name) is LOSSES[name]


@names
def test_what_is_no_tensor_is_refused(name):
    oracle = ORACLES[name]
    arguments = tensors(oracle, oracle.arguments(0, 2, 4, 3))
    first = next(iter(arguments))
    with pytest.raises(UserError, match="must be a tensor"):
        LOSSES[name](**arguments | {first: [np.zeros((4, 3))] * 2})


@pytest.mark.parametrize("name", list(LOSSES))
def test_an_argument_that_is_missing_is_named_as_by_any_function(name):
    with pytest.raises(TypeError, match="missing"):
        LOSSES[name]()


@pytest.mark.parametrize("name", [name for name in LOSSES if "temperature" in str(inspect.signature(LOSSES[name]))])
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_none_is_refused(name, temperature):
    oracle = ORACLES[name]
    arguments = tensors(oracle, oracle.arguments(0, 2, 4, 3))
    option = next(option for option in inspect.signature(LOSSES[name]).parameters if option.endswith("temperature"))
    with pytest.raises(UserError, match=f"{option} .*above 0"):
        LOSSES[name](**arguments | {option: temperature})


def test_the_order_of_keywords_does_not_matter():
    z = torch.randn(2, 8, 4)
    assert torch.equal(
        LOSSES["vicreg"](invariance_weight=5.0, z=z).total, LOSSES["vicreg"](z, invariance_weight=5.0).total
    )


def test_views_one_by_one_a_group_and_a_temperature_that_are_none_say_what_to_give():
    z = torch.randn(6, 4)
    with pytest.raises(UserError, match=r"one list: vicreg\(\[z1, z2\]\)"):
        frossl.losses.vicreg(z, z)
    with pytest.raises(UserError, match="'local', got 'loc'"):
        frossl.losses.vicreg([z, z], group="loc")
    with pytest.raises(UserError, match="temperature must be a number above 0, got"):
        frossl.losses.ntxent([z, z], temperature="0.1")
