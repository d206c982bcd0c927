"""A loss as a method: its arguments are options, and a projector stands before it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import tyro
from torch import Tensor

from frossl.core.types import Loss, UserError
from frossl.methods.base import METHODS
from frossl.methods.projector import LossMethod


def loss_method(
    loss: Callable[..., Loss | Tensor],
    projector: str = "1024-bn-relu-1024",
    published: str = "",
    *,
    float64: bool = False,
    eigenvalues: bool = False,
    **defaults: Any,
) -> type[LossMethod]:
    """``loss`` as a method, whose options are ``projector`` and the arguments of the loss.

    Args:
        loss: a function of projections ``(V, N, D)`` that returns a :class:`Loss` or a scalar. Its other arguments
            need defaults; their annotations are the types of the options, their docstrings the help. Two are filled
            in: ``labels``, ``(N,)`` class numbers, and ``large``, how many views, the first, are large.
        projector: the default head.
        published: the head elsewhere, for the help.
        float64: whether the loss computes in float64, which MPS has not.
        eigenvalues: whether it takes eigenvalues, for which each step waits for an accelerator.
        **defaults: where they differ from those of the loss.

    Raises:
        UserError: an argument of the loss cannot be an option.
    """
    return _class(loss, projector, published, (float64, eigenvalues), tuple(sorted(defaults.items())))


@functools.cache
def _class(*made_from: Any) -> type[LossMethod]:
    """The class of what :func:`loss_method` is given; one for each, which its configurations are unpickled by."""
    loss, projector, published, (float64, eigenvalues), changed = made_from
    defaults = dict(changed)
    text = "head on the backbone's features: widths, bn, relu joined by '-'" + (f" ({published})" if published else "")
    head = ("projector", Annotated[str, tyro.conf.arg(help=text)], projector)
    doc = (inspect.getdoc(loss) or "").replace("``", "")
    try:
        _, *parameters = inspect.signature(loss, eval_str=True).parameters.values()
        filled_in = {"labels", "large"} & {parameter.name for parameter in parameters}
        options = [_option(p, defaults.get(p.name, p.default)) for p in parameters if p.name not in filled_in]
        config = dataclasses.make_dataclass(
            "Config",
            [head, *options],
            frozen=True,
            kw_only=True,
            namespace={"__doc__": doc, "__reduce__": lambda self: (_restored, (made_from, vars(self)))},
        )
    except (AttributeError, NameError, SyntaxError, TypeError, ValueError) as error:
        raise UserError(
            f"{loss.__name__} is no method: a loss takes projections and then options with defaults; {error}"
        ) from None
    config.__qualname__ = f"{loss.__name__}.Config"
    members = {"loss": staticmethod(loss), "Config": config, "filled_in": filled_in, "__doc__": doc}
    members |= {"uses_labels": "labels" in filled_in, "float64": float64, "eigenvalues": eigenvalues}
    return type(loss.__name__, (LossMethod,), members)


def _restored(made_from: tuple[Any, ...], values: dict[str, Any]) -> Any:
    return _class(*made_from).Config(**values)


def _option(parameter: inspect.Parameter, default: Any) -> tuple[str, Any, Any]:
    """Name, type and default of an option."""
    if default is parameter.empty:
        raise ValueError(f"{parameter.name!r} has no default")
    kind = type(default) if parameter.annotation is parameter.empty else parameter.annotation
    return parameter.name, kind, default


def add_loss(name: str, loss: Callable[..., Loss], projector: str, published: str = "", **options: Any) -> None:
    """Registers the method ``name``; arguments as those of :func:`loss_method`."""
    METHODS.add(name, loss_method(loss, projector, published, **options))
