"""``frossl cache``: images decoded once, into a store."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from frossl.report.terminal import detail
from frossl.runs.config import Config
from frossl.runs.data import open_run_data


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Decode images once into a memory-mapped store; frossl pretrain --cache SIZE then reads that one."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """a folder of images or Parquet"""
    size: int
    """shorter side in pixels; smaller images stay as they are"""
    channels: Literal[1, 3] | None = None
    """store grey (1) or colour (3); by default 1 if all images are grey"""
    data_dir: Path = Path("data")
    """the store goes into the folder cache in it"""


def run(args: list[str], console: Console) -> int:
    given = tyro.cli(Cache, prog="frossl cache", args=args)
    names = ("data", "channels", "data_dir")
    config = Config(**{name: getattr(given, name) for name in names}, cache=given.size)
    data = open_run_data(config, detail(console))
    again = ["frossl", "pretrain", given.data, "--cache", str(given.size)]
    again += [] if given.channels is None else ["--channels", str(given.channels)]
    again += [] if given.data_dir == Path("data") else ["--data-dir", str(given.data_dir)]
    console.print(
        f"{len(data.train) + len(data.test):,} images are stored below {escape(str(given.data_dir / 'cache'))}. "
        f"Use them: {escape(shlex.join(again))}",
        soft_wrap=True,
        highlight=False,
    )
    return 0
