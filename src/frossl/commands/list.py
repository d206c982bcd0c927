"""``frossl list``: what there is to choose from."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from frossl.data import DATASETS
from frossl.evals import Metric, in_order
from frossl.methods import METHODS
from frossl.recipes import RECIPES
from frossl.views.recipes import VIEWS, summary


@dataclass(frozen=True, kw_only=True)
class List:
    """What there is to choose from."""

    what: tyro.conf.Positional[Literal["methods", "data", "recipes", "metrics"]]
    """kind of thing"""


def run(args: list[str], console: Console) -> int:
    given = tyro.cli(List, prog="frossl list", args=args)
    rows = {
        "methods": {name: _first_line(method) for name, method in METHODS.items()},
        "metrics": {name: f"{m.protocol}; {_measured_by(m)}" for name, m in in_order().items()},
        "data": {
            name: f"{r.train:,} + {r.test:,} images, {r.class_count} classes; {r.licence}"
            for name, r in DATASETS.items()
        },
        "recipes": {name: _first_line(recipe) for name, recipe in RECIPES.items()},
    }
    console.print(_table(rows[given.what]), highlight=False)
    if given.what == "recipes":
        views = _table({name: summary(name) for name in VIEWS})
        console.print("\nWhat views are made of, for --view-recipe:\n", views, highlight=False)
    return 0


def _measured_by(metric: Metric) -> str:
    """The commands that measure ``metric`` unless told otherwise."""
    commands = " and ".join(f"frossl {command}" for command in metric.default_of)
    return f"default of {commands}" if commands else "only by name"


def _table(rows: dict[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, text in rows.items():
        table.add_row(f"[bold]{escape(name)}[/]  ", escape(text))
    return table


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]
