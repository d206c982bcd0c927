"""The comparison of the FroSSL paper (arXiv 2310.02903), ``paper.toml``: every method on every data set.

The numbers are those of the public configurations: of the paper where it has its own, else of solo-learn, on which it
builds. Recipes are called ``paper-<data>-<method>``, those of 4 and 8 views ``paper-<data>-<method>-<V>views``; DATA
and all flags change them as usual. They are meant for one GPU and none was run to its end here. Known slips of the
files are put right, and the recipe says so; a pair of method and data set for which there is no file has no recipe.
No file is for more than two views: there, a recipe says what comes from the authors' sweeps over views and what from
the paper's text, and all else is that of the two-view file. Not as in the files:

- Warm-ups start at 0, there at 3e-5. Biases and norms are not decayed, there they are with SGD, Adam and the original
  LARS. Mixed precision is bfloat16, there float16.
- The online classifier has an optimiser of its own (:mod:`frossl.train.probe`).
- ImageNet-100 takes 256 images a step, there 128 on each of two GPUs (256 on each for some files of the paper's own).
- FroSSL is the centred loss that the published two-view runs used; the public code now calls the uncentred one. With
  more views its weight is scaled as in the code of January 2024, with which these runs were made.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from frossl.methods import METHODS
from frossl.recipes import add_recipe
from frossl.runs.config import Config

_PAPER = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def _add(
    data: str, method: str, hidden: int, width: int, lr: float, decay: float, views: str, *differs: dict[str, Any]
) -> None:
    place, kind, runs = _PAPER["data"][data], _PAPER["method"][method], _PAPER["run"]
    objective, run, notes = (*differs, {}, {}, {})[:3]
    many = f"{run['views']} views" if "views" in run else ""
    name = "-".join(filter(None, (data, method, many.replace(" ", ""))))
    views = f"{place['views']}-{views}"
    options = {"projector": kind["head"].format(hidden, width), **_PAPER["objective"].get(method, {}), **objective}
    config = Config(
        data=data,
        method=method,
        objective=METHODS[method].Config(**options),
        recipe=f"paper-{name}",
        view_recipe=views,
        lr=lr,
        weight_decay=decay,
        **runs["all"] | runs[data] | runs.get(method, {}) | run,
    )
    of_views = "" if many else _PAPER["corrected"].get(views)
    corrected = ", ".join(filter(None, (of_views, notes.get("corrected"))))
    facts = (
        f"{kind['title']} on {place['title']}, {config.length.removesuffix('ep')} epochs",
        many,
        f"published {_PAPER['published'][name]} %" if name in _PAPER["published"] else "",
        notes.get("note"),
        f"corrected: {corrected}" if corrected else "",
    )
    add_recipe(config, f"{'; '.join(filter(None, facts))}.")


for _rows, _cells in _PAPER["rows"].items():
    for _data in ("cifar10", "cifar100") if _rows == "cifar" else (_rows,):
        for _cell in _cells:
            _add(_data, *_cell)
