"""Hand-written gradients, and the plain formula that replaces them under ``torch.compile`` and ``torch.func``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def transformed() -> bool:
    """Whether ``torch.compile`` traces the caller, or ``torch.func`` (``grad``, ``vmap``, ``jvp``) transforms it.

    Values cannot be read or changed in place then.
    """
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def readable(x: Tensor) -> bool:
    """Whether a check may read values of ``x``: on the CPU, where that waits for no device, and not transformed."""
    return x.device.type == "cpu" and not transformed()


def apply(function: type[Function], formula: Callable[..., Any], *args: Any) -> Any:
    """``function.apply(*args)``, or, if the caller is transformed, the equal ``formula(*args)``."""
    return formula(*args) if transformed() else function.apply(*args)


def double_backward_by(formula: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a hand-written ``backward``: with ``create_graph`` autograd differentiates ``formula`` instead.

    ``formula`` takes the arguments of ``forward``. The first saved tensor must be the first argument, the only one with
    a gradient, and ``ctx.rest`` the others; of several results the first is differentiable. torch's
    ``once_differentiable`` raises no error where the incoming gradient is constant, as at the end of a loss, and second
    derivatives are silently wrong.
    """

    def decorated(backward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(backward)
        def wrapped(ctx: Any, *grads: Tensor) -> Any:
            if not torch.is_grad_enabled():
                return backward(ctx, *grads)
            x = ctx.saved_tensors[0]
            with torch.autocast(x.device.type, enabled=False):  # as in forward
                result = formula(x, *ctx.rest)
                total = result[0] if isinstance(result, tuple) else result
                (gradient,) = torch.autograd.grad(total, x, grads[0], create_graph=True)
            return gradient, *(None for _ in ctx.rest)

        return wrapped

    return decorated
