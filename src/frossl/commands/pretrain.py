"""``frossl pretrain``: from images without labels to an encoder and its verdict."""

from __future__ import annotations

import dataclasses
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import tyro
from rich.console import Console

from frossl.commands.report import open_in_browser
from frossl.core.distributed import rank
from frossl.core.launch import start_ranks, without
from frossl.core.machine import keep_freed_pages
from frossl.data.open import join_sources
from frossl.recipes import RECIPES
from frossl.runs.config import Config
from frossl.runs.directory import begun_run, read_run
from frossl.train.pretrain import pretrain
from frossl.train.ranks import Devices, ranks_here
from frossl.train.resources import device_of

M = TypeVar("M")
AUTO = Path("auto")


@dataclass(frozen=True, kw_only=True)
class Pretrain(Generic[M]):
    """Pretrain an encoder on images without labels, then compare it with an untrained one and with raw pixels."""

    config: Config[M]
    resume: Path | None = None
    """go on with the newest checkpoint of this run directory; its configuration holds, but for a longer --length.
    auto: go on with the run of --name if it has begun, else start it"""
    devices: Devices | None = None
    """ranks to start on this machine: so many, or auto for one on each GPU"""
    open: bool = False
    """open the report in a browser at the end, where there is a display"""


def run(args: list[str], console: Console) -> int:
    given = parse(args, "frossl pretrain")
    if (ranks := ranks_here(given.devices, given.config)) > 1:
        return start_ranks(ranks, ["pretrain", *without(args, "--devices")])
    settle_process(given.config)
    outcome = pretrain(given.config, resume="auto" if given.resume == AUTO else given.resume, console=console)
    if given.open and rank() == 0 and not outcome.stopped:
        open_in_browser(outcome.run / "report.html", console)
    return 128 + signal.Signals[outcome.stopped] if outcome.stopped else 0


def settle_process(config: Config[Any]) -> None:
    """What only the command line does to its process before it trains; programs that import the package choose."""
    if device_of(config).type == "cpu":
        keep_freed_pages()


def parse(args: list[str], prog: str, **defaults: Any) -> Pretrain[Any]:
    """What ``args`` say; ``defaults`` of fields come before those of the recipe."""
    resume, recipe, method = (_peek(args, flag) for flag in ("--resume", "--recipe", "--method"))
    default = Config(data=tyro.MISSING) if recipe in (None, "default") else RECIPES[recipe]()
    run = None if resume is None else Path(resume)
    if run == AUTO:
        run = begun_run(
            dataclasses.replace(default, name=_peek(args, "--name"), out=_peek(args, "--out") or default.out)
        )
    if run is not None:
        default = read_run(run)[0]
    if method not in (None, default.method):
        defaults |= {"method": method, "objective": None}
    default = dataclasses.replace(default, **defaults)
    return tyro.cli(
        Pretrain[type(default.objective)],
        prog=prog,
        args=join_sources(args),
        default=Pretrain(config=default),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )


def _peek(args: list[str], flag: str) -> str | None:
    """The last value of ``flag``, which decides what other flags there are, before they are parsed."""
    found = None
    for i, arg in enumerate(args):
        if arg == flag and i + 1 < len(args):
            found = args[i + 1]
        elif arg.startswith(f"{flag}="):
            found = arg.partition("=")[2]
    return found
