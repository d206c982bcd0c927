"""``frossl replay``: the step that was not finite, taken again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from frossl.runs.config import Device
from frossl.train.replay import replay


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Take the step of a run again whose loss or gradient was not finite, and look for the cause."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """run directory"""
    device: Device = "auto"
    """where to compute"""


def run(args: list[str], console: Console) -> int:
    given = tyro.cli(Replay, prog="frossl replay", args=args)
    replay(given.run, device=given.device, console=console)
    return 0
