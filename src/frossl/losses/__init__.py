"""Objectives: pure functions of embeddings ``(V, N, D)`` that give a ``Loss``; :data:`LOSSES` has them by name."""

from __future__ import annotations

import importlib
import pkgutil

from frossl.losses.base import LOSSES

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

from frossl.losses.frossl import FroSSLLoss, frossl  # noqa: E402  (hides the module of that name)

__all__ = ["LOSSES", "FroSSLLoss", "frossl"]
