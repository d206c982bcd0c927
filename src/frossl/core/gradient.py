"""Gradients written by hand, beside the plain formula that transformations of functions take instead."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def transformed() -> bool:
    """Whether ``torch.compile`` traces the caller, or ``torch.func`` (``grad``, ``vmap``, ``jvp``) transforms it.

    No value can be read then, so checks of values are left out, and no in-place shortcut taken.
    """
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def readable(x: Tensor) -> bool:
    """Whether a check may read values of ``x``: on the CPU, where nothing waits for a device, and not transformed."""
    return x.device.type == "cpu" and not transformed()


def apply(function: type[Function], formula: Callable[..., Any], *args: Any) -> Any:
    """``function.apply(*args)``, or, where the caller is transformed, ``formula(*args)``, which is equal to it."""
    return formula(*args) if transformed() else function.apply(*args)


def double_backward_by(formula: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """For a ``backward`` written by hand: with ``create_graph`` autograd differentiates ``formula`` instead.

    ``formula`` takes the arguments of ``forward``. The first saved tensor must be the first argument, the only one with
    a gradient, and ``ctx.rest`` the others; of several results the first is the differentiable one. torch's
    ``once_differentiable`` would take the gradient for a constant where the incoming one is, as at the end of a loss,
    so that second derivatives come out wrong, or zero, without a word.
    """

    def decorated(backward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(backward)
        def wrapped(ctx: Any, *grads: Tensor) -> Any:
            if not torch.is_grad_enabled():
                return backward(ctx, *grads)
            x = ctx.saved_tensors[0]
            with torch.autocast(x.device.type, enabled=False):  # as in forward, whatever the caller's is by now
                result = formula(x, *ctx.rest)
                total = result[0] if isinstance(result, tuple) else result
                (gradient,) = torch.autograd.grad(total, x, grads[0], create_graph=True)
            return gradient, *(None for _ in ctx.rest)

        return wrapped

    return decorated
