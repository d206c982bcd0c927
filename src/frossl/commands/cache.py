"""``frossl cache``: images decoded once, into a store."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace

import tyro
from rich.console import Console
from rich.markup import escape

from frossl.data.open import join_sources
from frossl.data.options import COLUMNS, DataOptions
from frossl.report.terminal import detail
from frossl.runs.config import Images
from frossl.runs.data import load_run_data


@dataclass(frozen=True, kw_only=True)
class Cache(Images):
    """Decode images once into a memory-mapped store; frossl pretrain --cache SIZE then reads that one."""

    size: int
    """shorter side in pixels; smaller images stay as they are"""
    cache: tyro.conf.Suppress[int | None] = None
    held_out: tyro.conf.Suppress[float] = 0.1  # one store serves every choice of held-out images
    seed: tyro.conf.Suppress[int] = 0


def run(args: list[str], console: Console) -> int:
    given = tyro.cli(Cache, prog="frossl cache", args=join_sources(args))
    data = load_run_data(replace(given, cache=given.size), detail(console))
    again = ["frossl", "pretrain", given.data, "--cache", str(given.size)]
    again += [] if given.labels else ["--no-labels"]
    for name in ("targets", *COLUMNS, "channels", "range", "pages", "axes", "max_pixels", "data_dir"):
        if (value := getattr(given, name)) != getattr(DataOptions, name):
            values = value if isinstance(value, tuple) else (value,)
            again += [f"--{name.replace('_', '-')}", *map(str, values)]
    console.print(
        f"{len(data.train) + len(data.test):,} images are stored below {escape(str(given.data_dir / 'cache'))}. "
        f"Use them: {escape(shlex.join(again))}",
        soft_wrap=True,
        highlight=False,
    )
    return 0
