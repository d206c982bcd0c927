"""Ablations of FroSSL on two cores: the CIFAR-10 recipe with one thing changed, at equal images; none was run here.

Compare each with ``ablation-none``, over several seeds.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from frossl.recipes import add_recipe
from frossl.recipes.cpu import cifar10

_BASE = replace(cifar10(), length="8ep")  # about the 10 minutes of the recipe


def _add(name: str, what: str, options: dict[str, Any] | None = None, run: dict[str, Any] | None = None) -> None:
    objective = replace(_BASE.objective, **options or {})
    config = replace(_BASE, recipe=f"ablation-{name}", objective=objective, **run or {})
    add_recipe(config, f"FroSSL on CIFAR-10, two cores: {what}.")


for _name, _row in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).items():
    _add(_name, *_row)
