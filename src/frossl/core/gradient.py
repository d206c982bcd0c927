"""Gradients that are written by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from frossl.core.types import UserError


def only_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """For the ``backward`` of a function of which there is no second derivative: with ``create_graph`` it refuses.

    torch's ``once_differentiable`` takes the gradient for a constant where the incoming one is, as at the end of a
    loss, so that second derivatives come out wrong, or zero, without a word.
    """

    @functools.wraps(backward)
    def wrapped(*args: Any) -> Any:
        if torch.is_grad_enabled():
            raise UserError(
                "the gradient of this loss is written by hand and cannot be differentiated again: go backward without "
                "create_graph, and take second derivatives by finite differences of the gradient"
            )
        return backward(*args)

    return wrapped
