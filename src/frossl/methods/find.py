"""Methods by name: the registered ones, and those of the user's own."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from typing import Any

from frossl.core.types import UserError
from frossl.methods.base import METHODS, Method
from frossl.methods.of_loss import loss_method


def find_method(name: str) -> type[Any]:
    """The class of the registered method ``name``, or of the user's own, ``module:Class`` or ``module:loss``.

    ``module`` is imported from the current directory or from wherever Python finds it. A loss, a function of
    projections ``(V, N, D)``, becomes a method by :func:`~frossl.methods.of_loss.loss_method`.

    Raises:
        UserError: there is none, or it is neither a :class:`Method` with a ``Config`` nor a loss.
    """
    if ":" not in name:
        return METHODS[name]
    module, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"--method {name}: {error}. Write it as module:Class or module:loss, the module in this directory"
        ) from None
    finally:
        sys.path.pop(0)
    if inspect.isfunction(found):
        return loss_method(found)
    if not (isinstance(found, type) and issubclass(found, Method) and hasattr(found, "Config")):
        raise UserError(
            f"--method {name} must be a loss, a function of projections (V, N, D), or a class that derives from "
            "frossl.methods.Method and has a Config"
        )
    return found
