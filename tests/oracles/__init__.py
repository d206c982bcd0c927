"""Oracles: slow, obvious float64 NumPy restatements of every loss, one module each, named as in the registry.

They are written from the papers' formulas and never from an implementation, with loops over anchors and pairs of views
where that is plainer. :func:`load` reads a module; a new loss gets every property test once its module is there.

A module has

* ``case(random, views, images, width) -> dict``: arguments of the loss, for any views >= 2, images >= 1 and width >= 1,
  valid from 2 images on: float64 arrays, integer arrays, then plain options, if any; positional parameters first, in
  their order.
* ``loss(**arguments) -> dict``: the weighted terms by name; their sum is the total. Its defaults are the loss's.
* ``EMBEDDINGS``: the arguments ``(views, images, width)`` that come from a network. The first is the first parameter of
  the loss and has at least two views. These get low precision and degenerate values in tests; those not in
  ``STOPPED`` are differentiated.
* ``SHARDED``: the axis of the images in every argument that has one; on many ranks each holds a part of it.

and may have

* ``OPTIONS``: dictionaries of options to test with, each laid over the case; ``({},)`` if absent.
* ``STOPPED``: arguments that must get no gradient.
* ``WIDE``: arguments that stay float64 whatever the embeddings are.
* ``state(**arguments) -> dict``: the new state by name.
* ``stopped_gradient(**arguments) -> array | None``: gradient with respect to the first argument where options stop a
  part of it, so that it is not the derivative of the value; None where it is.
* ``INVARIANCES``: by name, ``function(random, arguments) -> arguments | None``: changes that leave every term as it
  is; None where the options do not allow it.
* ``ERRORS``: by name, ``function(random) -> (arguments, pattern)``: arguments that must raise a ``UserError`` and
  what it must say.
* ``FEWEST_VIEWS``: 1 for a loss that makes sense with one view.

Conventions: a zero row stays zero when rows are made unit, so its cosines are 0; 0 log 0 = 0.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Oracle:
    """A module of this package with what it leaves out filled in."""

    name: str
    case: Callable[[np.random.Generator, int, int, int], Arguments]
    loss: Callable[..., dict[str, float]]
    embeddings: tuple[str, ...]
    sharded: Mapping[str, int]
    options: tuple[Arguments, ...]
    stopped: tuple[str, ...]
    wide: tuple[str, ...]
    state: Callable[..., dict[str, np.ndarray]]
    stopped_gradient: Callable[..., np.ndarray | None]
    invariances: Mapping[str, Callable[[np.random.Generator, Arguments], Arguments | None]]
    errors: Mapping[str, Callable[[np.random.Generator], tuple[Arguments, str]]]
    fewest_views: int

    @property
    def differentiable(self) -> tuple[str, ...]:
        return tuple(name for name in self.embeddings if name not in self.stopped)

    def arguments(self, seed: int, views: int, images: int, width: int, **options: Any) -> Arguments:
        """A case with ``options`` laid over it."""
        return {**self.case(np.random.default_rng(seed), views, images, width), **options}


def exists(name: str) -> bool:
    return importlib.util.find_spec(f"{__name__}.{name}") is not None


def load(name: str) -> Oracle:
    """The oracle of the loss ``name``."""
    if not exists(name):
        raise LookupError(
            f"the loss {name!r} has no oracle: write tests/oracles/{name}.py, a slow float64 NumPy restatement of its "
            "formula, as tests/oracles/__init__.py says"
        )
    module = importlib.import_module(f"{__name__}.{name}")
    return Oracle(
        name=name,
        case=module.case,
        loss=module.loss,
        embeddings=module.EMBEDDINGS,
        sharded=module.SHARDED,
        options=getattr(module, "OPTIONS", ({},)),
        stopped=getattr(module, "STOPPED", ()),
        wide=getattr(module, "WIDE", ()),
        state=getattr(module, "state", lambda **arguments: {}),
        stopped_gradient=getattr(module, "stopped_gradient", lambda **arguments: None),
        invariances=getattr(module, "INVARIANCES", {}),
        errors=getattr(module, "ERRORS", {}),
        fewest_views=getattr(module, "FEWEST_VIEWS", 2),
    )
