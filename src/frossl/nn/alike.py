"""Whether two modules are the same encoder but for their weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from frossl.core.device import fork_random
from frossl.nn.modes import kept_in_eval


def timm_name(module: nn.Module) -> str | None:
    """The architecture that a module of timm says it is."""
    import timm

    about = getattr(module, "pretrained_cfg", None)
    name = about.get("architecture") if isinstance(about, Mapping) else None
    return name if isinstance(name, str) and timm.is_model(name) else None


def random_images(channels: int, size: int, count: int) -> Tensor:
    """The same noise ``(count, channels, size, size)`` at each call; torch's generator is left as it was."""
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def alike(one: nn.Module, other: nn.Module, channels: int, sizes: Iterable[int]) -> bool:
    """Whether training either of them would be the same: one may be built in the place of the other.

    They have the same layers, and parameters and buffers of the same names, shapes and types, all of them trained. With
    the same weights they give the same features of random images of ``sizes`` to the bit, in eval mode and, from the
    same random numbers, in train mode, where their buffers then change alike. torch's generator is left as it was.
    """
    if _layers(one) != _layers(other) or not all(map(_trains_throughout, (one, other))):
        return False
    pair = [copy.deepcopy(m).to("cpu", memory_format=torch.channels_last) for m in (one, other)]  # type: ignore[call-overload]
    with fork_random():
        # What is all zero, as the last scale of timm's residual branches, would hide the layers before it.
        state = {k: v if v.any() else v + 0.1 * torch.rand(v.shape) for k, v in pair[0].state_dict().items()}
        for m in pair:
            m.load_state_dict(state)
        runs = [(size, training) for training in (False, True) for size in sorted(set(sizes))]
        same = all(_equal(*(_features(m, channels, *run) for m in pair)) for run in runs)
    states = [m.state_dict() for m in pair]
    return same and all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def _layers(module: nn.Module) -> list[tuple]:
    layers = [(name, type(layer)) for name, layer in module.named_modules()]
    return layers + [(name, value.shape, value.dtype) for name, value in module.state_dict().items()]


def _trains_throughout(module: nn.Module) -> bool:
    return not kept_in_eval(module) and all(p.requires_grad for p in module.parameters())


@torch.no_grad()
def _features(module: nn.Module, channels: int, size: int, training: bool) -> Tensor | None:
    torch.manual_seed(size)
    try:
        h = module.train(training)(torch.randn(2, channels, size, size))
    except (RuntimeError, AssertionError):  # it does not take this size
        return None
    return h if isinstance(h, Tensor) else None


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)
