"""Convolutions that the CPU gets wrong in bfloat16, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@contextmanager
def narrow_in_float32(network: nn.Module, device: torch.device, bf16: bool) -> Iterator[None]:
    """On the CPU, convolutions of ``network`` that get a map narrower than their stride in bf16 run in float32.

    There oneDNN reads memory that nobody wrote: the gradient of the weight is NaN or another one from call to call. The
    output stays bf16. Hooks do it, as modes of torch are not in force where a backward pass calls layers again; so it
    holds for layers, not for functions that a module calls, and not within ``torch.compile``.
    """
    convs = []
    if bf16 and device.type == "cpu":
        convs = [m for m in network.modules() if isinstance(m, _CONVOLUTIONS) and m.stride[-1] > 1]
    hooks = [conv.register_forward_hook(_in_float32, prepend=True, with_kwargs=True) for conv in convs]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _in_float32(conv: Any, args: tuple[Any, ...], kwargs: dict[str, Any], y: Tensor) -> Tensor | None:
    """The output again, where it may be wrong."""
    x: Tensor = (*args, *kwargs.values())[0]
    if x.shape[-1] >= conv.stride[-1] or y.dtype != torch.bfloat16:
        return None

    def wide(value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) else value

    weights = {name: p.float() for name, p in conv.named_parameters()}
    args, kwargs = tuple(map(wide, args)), {name: wide(value) for name, value in kwargs.items()}
    with torch.autocast("cpu", enabled=False):
        return functional_call(conv, weights, args, kwargs).bfloat16()
