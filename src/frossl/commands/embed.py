"""``frossl embed``: a vector for every image of a folder, in a file."""

from __future__ import annotations

import tyro
from rich.console import Console

from frossl.data.open import join_sources
from frossl.report import terminal
from frossl.train.embed import EmbedOptions, embed_to_file


def run(args: list[str], console: Console) -> int:
    given = tyro.cli(EmbedOptions, prog="frossl embed", args=join_sources(args))
    embed_to_file(given, console)
    terminal.wrote(console, "Embeddings", given.out)
    return 0
