"""What the tests of all losses share: oracles by name, and their arguments as tensors."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frossl.core.types import Loss
from frossl.losses import LOSSES
from oracles import Arguments, Oracle, exists, load

ORACLES = {name: load(name) for name in LOSSES if exists(name)}
"""Of every registered loss; that none lacks one is a test of its own."""

CASES = [(name, options) for name, oracle in ORACLES.items() for options in oracle.options]


def case_name(case: tuple[str, Arguments]) -> str:
    name, options = case
    return "-".join([name, *(f"{key}={value}" for key, value in options.items())])


def tensors(oracle: Oracle, arguments: Arguments, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Arrays as tensors: embeddings as ``dtype``; other numbers at least float32, integers and options as they are."""

    def converted(name: str, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        tensor = torch.from_numpy(value.copy())
        if name in oracle.embeddings:
            return tensor.to(dtype)
        if tensor.is_floating_point() and name not in oracle.wide and dtype != torch.float64:
            return tensor.float()
        return tensor

    return {name: converted(name, value) for name, value in arguments.items()}


def call(oracle: Oracle, arguments: dict[str, Any]) -> Loss:
    """The loss, its positional parameters by position."""
    function = LOSSES[oracle.name]
    parameters = inspect.signature(function).parameters.values()
    positional = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    rest = {name: value for name, value in arguments.items() if name not in positional}
    return function(*(arguments[name] for name in positional), **rest)


def with_gradients(oracle: Oracle, arguments: dict[str, Any]) -> tuple[Loss, dict[str, Tensor]]:
    """The loss, and its gradient with respect to every differentiable argument."""
    leaves = {name: arguments[name].detach().clone().requires_grad_() for name in oracle.differentiable}
    loss = call(oracle, arguments | leaves)
    gradients = torch.autograd.grad(loss.total, list(leaves.values()))
    return loss, dict(zip(leaves, gradients, strict=True))


def size_of(terms: dict[str, Any]) -> float:
    """Sum of the absolute values of the terms: what rounding errors of the total are relative to."""
    return sum(abs(float(term)) for term in terms.values())
