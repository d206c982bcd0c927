"""``frossl list``: what there is to choose from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from frossl.data import DATASETS
from frossl.evals import in_order
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
    table = Table(box=None, pad_edge=False, show_header=False)
    rows: dict[str, Callable[[], list[tuple[str, str]]]] = {
        "methods": lambda: [(name, _first_line(method)) for name, method in METHODS.items()],
        "metrics": lambda: [
            (name, m.protocol + ("" if "evaluate" in m.default_of else "; not by default"))
            for name, m in in_order().items()
        ],
        "data": lambda: [
            (name, f"{r.train:,} + {r.test:,} images, {r.class_count} classes; {r.licence}")
            for name, r in DATASETS.items()
        ],
        "recipes": lambda: [(name, _first_line(recipe)) for name, recipe in RECIPES.items()],
    }
    for name, text in rows[given.what]():
        table.add_row(f"[bold]{escape(name)}[/]  ", escape(text))
    console.print(table, highlight=False)
    if given.what == "recipes":
        views = Table(box=None, pad_edge=False, show_header=False)
        for name in VIEWS:
            views.add_row(f"[bold]{escape(name)}[/]  ", escape(summary(name)))
        console.print("\nWhat views are made of, for --view-recipe:\n", views, highlight=False)
    return 0


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]
