"""Methods, one file each: a frozen ``Config`` beside a :class:`Method` that maps backbone features to a ``Loss``."""

from __future__ import annotations

import importlib
import pkgutil

from frossl.methods.base import METHODS, Method, find_method

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "Method", "find_method"]
