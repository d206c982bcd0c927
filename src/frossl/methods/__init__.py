"""Methods: losses behind a projector in one table (``heads.py``), a file each for those with more than that."""

from __future__ import annotations

import importlib
import pkgutil

from frossl.methods.base import METHODS, Method
from frossl.methods.find import find_method

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "Method", "find_method"]
