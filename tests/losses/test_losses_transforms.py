"""Every loss in one compiled graph, under ``torch.func.grad`` and ``vmap``, and differentiated twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_cases import CASES, ORACLES, call, case_name, tensors, with_gradients
from torch import Tensor

names = pytest.mark.parametrize("name", ORACLES)
cases = pytest.mark.parametrize(("name", "options"), CASES, ids=[case_name(case) for case in CASES])
TWICE = [case for case in CASES if "stop_gradient" not in case[1]]
"""But for those whose gradient takes something for a constant: it is the derivative of nothing."""
pytestmark = pytest.mark.filterwarnings("ignore:embeddings .* are read as")
TIGHT: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8}


def prepared(name: str, seed: int = 1, **options: Any) -> tuple[Any, dict[str, Any]]:
    oracle = ORACLES[name]
    return oracle, tensors(oracle, oracle.arguments(seed, 3, 6, 4, **options))


def total_of(oracle: Any, inputs: dict[str, Any], z: Tensor) -> Tensor:
    return call(oracle, inputs | {oracle.embeddings[0]: z}).total


@names
def test_it_compiles_as_one_graph(name):
    torch._dynamo.reset()  # the recompile limit counts what losses share
    oracle, inputs = prepared(name)
    compiled = torch.compile(lambda z: total_of(oracle, inputs, z), fullgraph=True, backend="aot_eager")
    z = inputs[oracle.embeddings[0]].requires_grad_()
    (gradient,) = torch.autograd.grad(compiled(z), z)
    torch.testing.assert_close(gradient, with_gradients(oracle, inputs)[1][oracle.embeddings[0]], **TIGHT)


@cases
def test_functional_gradients_are_those_of_backward(name, options):
    oracle, inputs = prepared(name, **options)
    first = oracle.embeddings[0]
    got = torch.func.grad(lambda z: total_of(oracle, inputs, z))(inputs[first])
    torch.testing.assert_close(got, with_gradients(oracle, inputs)[1][first], **TIGHT)


@names
def test_a_batch_of_losses_is_each_of_them(name):
    oracle, inputs = prepared(name)
    z = torch.stack([prepared(name, seed)[1][oracle.embeddings[0]] for seed in (1, 2, 3)])
    got = torch.func.vmap(lambda z: total_of(oracle, inputs, z))(z)
    torch.testing.assert_close(got, torch.stack([total_of(oracle, inputs, one) for one in z]), **TIGHT)


@pytest.mark.parametrize(("name", "options"), TWICE, ids=[case_name(case) for case in TWICE])
def test_a_second_derivative_is_right(name, options):
    """Along one direction: of a gradient written by hand torch makes 0, or the part that the rest of the loss has."""
    oracle, inputs = prepared(name, **options)
    first = oracle.embeddings[0]
    x = inputs[first]
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))

    def gradient(step: float) -> Tensor:
        return with_gradients(oracle, inputs | {first: x + step * direction})[1][first]

    _, got = torch.autograd.functional.hvp(lambda z: total_of(oracle, inputs, z), x, direction)
    torch.testing.assert_close(got, (gradient(1e-5) - gradient(-1e-5)) / 2e-5, rtol=1e-6, atol=1e-6)


@names
def test_a_gradient_under_autocast_is_the_same_with_create_graph(name):
    oracle, inputs = prepared(name)
    inputs = tensors(oracle, oracle.arguments(1, 3, 6, 4), torch.float32)
    z = inputs[oracle.embeddings[0]].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        first, again = (
            torch.autograd.grad(total_of(oracle, inputs, z), z, create_graph=graph)[0] for graph in (False, True)
        )
    torch.testing.assert_close(again, first, rtol=1e-4, atol=1e-4)
