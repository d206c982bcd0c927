"""The registry of objectives, and their common first and last lines."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, ParamSpec

import torch
from torch import Tensor, nn

from frossl.core.axes import Views, as_tensors, stack_views
from frossl.core.distributed import Scope, gather, within
from frossl.core.registry import Registry, unknown_name
from frossl.core.types import Loss, UserError

P = ParamSpec("P")

LOSSES: Registry[Callable[..., Loss]] = Registry("loss")


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """Switches autocast off; free where it is off."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def register_loss(loss: Callable[P, Loss]) -> Callable[P, Loss]:
    """Registers ``loss`` under its own name; adds checks of arguments, no autocast, and the argument ``group``."""

    parameters = inspect.signature(loss).parameters
    first_name, most = next(iter(parameters)), sum(p.kind is not p.KEYWORD_ONLY for p in parameters.values())

    @functools.wraps(loss)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Loss:
        first = args[0] if args else kwargs.get(first_name, ())  # without it the loss says what is missing
        if len(args) > most and all(isinstance(view, Tensor) for view in args):
            raise UserError(f"give the views as one list: {loss.__name__}([z1, z2])")
        tensors = as_tensors(first)  # type: ignore[arg-type]
        for name, value in kwargs.items():
            if name.endswith("temperature") and (isinstance(value, str) or not value > 0):  # type: ignore[operator]
                raise UserError(f"{name} must be a number above 0, got {value!r}")
        group: Any = kwargs.pop("group", None)
        if isinstance(group, str) and group != "local":
            raise UserError(f"group must be a process group or 'local', got {group!r}")
        ranks = nullcontext() if group is None else within(Scope(group))
        with ranks, without_autocast(tensors[0].device.type if tensors else "cpu"):
            return loss(*args, **kwargs)

    LOSSES.add(loss.__name__, wrapped)
    return wrapped


def embeddings(z: Views) -> Tensor:
    """Embeddings of V views of the global batch, ``(V, N, D)``, in float32, or float64 if they came so.

    Raises:
        UserError: fewer than two views, unequal shapes, or integers.
    """
    return gather(upcast(stack_views(z)), dim=1)


def upcast(x: Tensor) -> Tensor:
    """``x`` in float32, or float64 if it came so."""
    return x if x.dtype == torch.float64 else x.float()


def make_loss(state: Mapping[str, Tensor] = MappingProxyType({}), **terms: Tensor) -> Loss:
    """The :class:`Loss` whose total is the sum of ``terms``."""
    total = torch.stack(list(terms.values())).sum()
    return Loss(total, {name: term.detach() for name, term in terms.items()}, state)


class LossModule(nn.Module):
    """A loss as a module, for training loops that expect one: its options are fixed, and it returns ``total``.

    Args:
        loss: a function of :mod:`frossl.losses` or its name.
        group: as in all losses: ranks that share a batch.
        options: other keyword arguments of it.

    Raises:
        UserError: no loss has that name, or the loss has no such option.

    >>> criterion = LossModule("vicreg", covariance_weight=2.0)
    >>> criterion([torch.randn(8, 4), torch.randn(8, 4), torch.randn(8, 4)]).ndim
    0
    """

    def __init__(self, loss: str | Callable[..., Loss], *, group: Any = None, **options: Any) -> None:
        super().__init__()
        self.loss = LOSSES[loss] if isinstance(loss, str) else loss
        self.options = options | ({} if group is None else {"group": group})
        signature = inspect.signature(self.loss)
        for name in options:
            try:
                signature.bind_partial(**{name: options[name]})  # a wrong name fails here, not at the first step
            except TypeError:
                _, *known = signature.parameters
                raise unknown_name(f"option of {self.loss.__name__}", name, known) from None

    def forward(self, *tensors: Any) -> Tensor:
        """The scalar to minimise, of the positional arguments of the loss: embeddings, then targets if it has any."""
        return self.loss(*tensors, **self.options).total

    def extra_repr(self) -> str:
        return ", ".join([self.loss.__name__, *(f"{k}={v!r}" for k, v in self.options.items())])
