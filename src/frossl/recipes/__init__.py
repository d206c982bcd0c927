"""Recipes: functions that return the configuration of a whole run.

The docstring of a recipe is its command, the time it takes and the result to expect, as measured.
"""

from __future__ import annotations

from collections.abc import Callable

from frossl.core.registry import Registry
from frossl.train.config import Config

RECIPES: Registry[Callable[[], Config]] = Registry("recipe")

from frossl.recipes import cpu, paper  # noqa: E402, F401  (register themselves)
