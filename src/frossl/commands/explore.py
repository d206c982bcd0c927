"""``frossl explore``: a page and lists of what is in a folder of images."""

from __future__ import annotations

import tyro
from rich.console import Console

from frossl.data.open import join_sources
from frossl.report import terminal
from frossl.train.explore import ExploreOptions, explore_as


def run(args: list[str], console: Console) -> int:
    given = tyro.cli(ExploreOptions, prog="frossl explore", args=join_sources(args))
    found = explore_as(given, console)
    terminal.wrote(console, "Page", found.page)
    for file in next(iter(found.lists.values())):
        terminal.wrote(console, "List", found.page.with_name(file))
    return 0
