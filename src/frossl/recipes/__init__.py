"""Recipes: functions that return the configuration of a whole run.

The docstring of a recipe is its command, the time it takes and the result to expect, as measured.
"""

from __future__ import annotations

from collections.abc import Callable

from frossl.core.registry import Registry
from frossl.runs.config import Config

RECIPES: Registry[Callable[[], Config]] = Registry("recipe")


def add_recipe(config: Config, doc: str) -> None:
    """Registers ``config`` under the name in its field ``recipe``, for recipes that come from a table."""

    def recipe() -> Config:
        return config

    recipe.__doc__ = doc
    RECIPES.add(config.recipe, recipe)


from frossl.recipes import ablations, cpu, paper  # noqa: E402, F401  (register themselves)
