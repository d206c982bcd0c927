"""Train and eval mode of encoders in which some batch norms may be in eval mode to stay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


def kept_in_eval(module: nn.Module) -> list[str]:
    """Names of the sub-modules that training leaves in eval mode: those that are so while ``module`` is in train mode.

    A module that is in eval mode as a whole is trained as a whole, so it has none.
    """
    return [name for name, m in module.named_modules() if not m.training] if module.training else []


def train_mode(module: nn.Module, kept: Iterable[str]) -> nn.Module:
    """``module`` in train mode, but for the sub-modules ``kept`` in eval mode."""
    module.train()
    for name in kept:
        module.get_submodule(name).training = False
    return module


def keep_batch_norms_in_eval(module: nn.Module) -> None:
    """Puts the batch norms of ``module`` in eval mode for good: statistics are frozen, scales still learn."""
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.eval()


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """``module`` in eval mode inside; afterwards it and each sub-module are in the mode they were in before."""
    before = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        module.train(before[0][1])  # as a whole first, for modules that do more in train() than note the mode
        for m, training in before:
            m.training = training
