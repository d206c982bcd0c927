"""A CUDA device that is not there: tensors that say ``cuda:0`` and count what a step would make the host wait for.

Tensors on it have shapes and types but no numbers; those on the CPU are real. What is counted is named after the line
of the package that caused it, so that a test that fails says where. Streams and pinned memory are those of
:mod:`frossl.core.device`, which :func:`fake_cuda` replaces.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("cuda:0")
BLOCKING, READ, SHAPE, MIX = "blocking copy", "value read", "data-dependent shape", "CPU and CUDA mixed"
NO_KERNELS = {"device", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "scalar_tensor"}
UNKNOWN_TO_FAKES = {"_fused_sgd_"}
"""Kernels in place that torch cannot run without numbers."""
CHECKED = {"_linalg_eigh", "_linalg_svd", "linalg_eig"}
"""Decompositions whose outcome torch reads to tell whether there was one."""
SIZED_BY_DATA = {"nonzero", "masked_select", "unique", "_unique2", "unique_dim", "unique_consecutive", "bincount"}


@dataclass
class Counts:
    """What happened on the device: waits by kind and place, kernels by place, copies that block nobody."""

    waits: Counter = field(default_factory=Counter)
    kernels: Counter = field(default_factory=Counter)
    copies: int = 0

    def clear(self) -> None:
        self.waits.clear()
        self.kernels.clear()
        self.copies = 0

    def row(self) -> dict[str, int]:
        """Totals by kind."""
        kinds = dict.fromkeys((BLOCKING, READ, SHAPE, MIX), 0)
        for (kind, _), times in self.waits.items():
            kinds[kind] += times
        return kinds | {"copies": self.copies, "kernels": sum(self.kernels.values())}


def _place() -> str:
    """The innermost line of the package."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/src/frossl/" in name and not name.endswith("core/device.py"):
            return f"{name.split('/src/frossl/')[1]}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def _on_cuda(x: Tensor) -> bool:
    return isinstance(x, FakeTensor) and x.device.type == "cuda"


class _Watch(TorchDispatchMode):
    def __init__(self, counts: Counts, pinned: set[int]) -> None:
        super().__init__()
        self.counts, self.pinned = counts, pinned

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        device = kwargs.get("device")
        to = torch.device(device).type if device is not None else None
        if to != "cuda" and not any(isinstance(x, FakeTensor) for x in tensors):
            with _disable_current_modes():
                return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        waits, place = self.counts.waits, _place()
        if name in ("_to_copy", "copy_"):
            source = tensors[0] if name == "_to_copy" else tensors[1]
            target = to or tensors[0].device.type
            if _on_cuda(source) and target == "cpu":
                waits[BLOCKING, place] += 1
                with _disable_current_modes():
                    return torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)
            if not _on_cuda(source) and target == "cuda":
                free = id(source) in self.pinned and (kwargs.get("non_blocking") or args[2:] == (True,))
                if free:
                    self.counts.copies += 1
                else:
                    waits[BLOCKING, place] += 1
        elif name == "_local_scalar_dense":
            waits[READ, place] += 1
            return 1.0 if tensors[0].dtype.is_floating_point else 1
        elif name in CHECKED:
            waits[READ, place] += 1
        elif name in SIZED_BY_DATA:
            waits[SHAPE, place] += 1
        elif any(map(_on_cuda, tensors)) and any(not _on_cuda(x) and x.ndim for x in tensors):
            waits[MIX, place] += 1
        if not func.is_view and name not in NO_KERNELS:
            self.counts.kernels[place] += 1
        return None if name in UNKNOWN_TO_FAKES else func(*args, **kwargs)


@contextlib.contextmanager
def fake_cuda() -> Iterator[Counts]:
    """Inside, tensors can be made on and moved to ``cuda:0``; gives what they made the host do."""
    counts, pinned, alive = Counts(), set(), []

    def pin(x: Tensor) -> Tensor:
        alive.append(x := x.clone())
        pinned.add(id(x))
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("frossl.core.device.pinned", pin)
        patch.setattr("frossl.core.device.free_memory", lambda device: 1e12)
        patch.setattr(Tensor, "backward", backward)
        patch.setattr(torch.autograd, "backward", backward)
        with FakeTensorMode(allow_non_fake_inputs=True), _Watch(counts, pinned):
            yield counts


class Fabric:
    """What a :class:`~frossl.train.step.Stepper` asks of Lightning's, on the device that is not there."""

    def __init__(self, dtype: torch.dtype | None = torch.bfloat16, device: torch.device = DEVICE) -> None:
        self.device, self.dtype = device, dtype

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def setup(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, torch.optim.Optimizer]:
        def forward(*args: Any) -> Any:
            with self.autocast():
                return module(*args)

        return forward, optimizer

    def backward(self, loss: Tensor) -> None:
        loss.backward()


@torch.no_grad()
def backward(x: Tensor, gradient: Tensor | None = None) -> None:
    """As ``x.backward(gradient)``, whose engine asks for a real device: the same nodes, one after the other."""
    order, seen = [], set()

    def visit(root: Any) -> None:
        stack = [(root, iter(root.next_functions))]
        seen.add(root)
        while stack:
            following = stack[-1][1]
            child = next((n for n, _ in following if n is not None and n not in seen), None)
            if child is None:
                order.append(stack.pop()[0])
            else:
                seen.add(child)
                stack.append((child, iter(child.next_functions)))

    visit(x.grad_fn)
    pending: dict[Any, list[Tensor | None]] = {node: [None] * len(node._input_metadata) for node in order}
    pending[x.grad_fn][x.output_nr] = torch.ones_like(x) if gradient is None else gradient
    for node in reversed(order):
        call = node.apply if hasattr(node, "apply") else node
        found = call(*pending.pop(node))
        gradients = found if isinstance(found, tuple) else (found,)
        for (child, place), gradient in zip(node.next_functions, gradients, strict=False):
            if child is not None and gradient is not None:
                expected = child._input_metadata[place]
                if gradient.shape != torch.Size(expected.shape):  # of what was broadcast
                    gradient = gradient.sum_to_size(expected.shape)
                gradient = gradient.to(expected.dtype)
                before = pending[child][place]
                pending[child][place] = gradient if before is None else before + gradient
