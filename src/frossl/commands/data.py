"""``frossl data prepare``: named data sets that a person has to download, laid out as they are opened."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from frossl.core.registry import unknown_name
from frossl.data.options import DataOptions
from frossl.data.prepare import prepare
from frossl.data.trees import Mode
from frossl.report import terminal


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Lay out ImageNet-100 or Tiny ImageNet, as it was downloaded, as the folder that its name opens."""

    name: Annotated[tyro.conf.Positional[Literal["imagenet100", "tiny-imagenet"]], tyro.conf.arg(metavar="NAME")]
    """imagenet100 or tiny-imagenet"""
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """folder with train/ and val/ of ImageNet or Tiny ImageNet, or a .zip of it"""
    to: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """what to make (data/imagenet100 or data/tiny-imagenet-200 if not given)"""
    classes: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """WordNet ids of other classes, as many (the list that papers use if not given)"""
    labels: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """classes of the images of a flat val/ (looked for beside it if not given)"""
    mode: Mode | Literal["auto"] = "auto"
    """hard links, symbolic links or copies; auto takes the first of these that can be made"""


def run(args: list[str], console: Console) -> int:
    what = args[0] if args else "--help"
    if what not in ("prepare", "-h", "--help"):
        raise unknown_name("command of frossl data", what, ["prepare"])
    given = tyro.cli(Prepare, prog="frossl data prepare", args=args[1:] if what == "prepare" else ["--help"])
    with terminal.working(console, "preparing") as log:
        made = prepare(
            given.name,
            given.source,
            given.to,
            classes=given.classes,
            labels=given.labels,
            mode=given.mode,
            log=log,
        )
    terminal.wrote(console, "Prepared", made.folder)
    terminal.say(console, f"{_counted(made.train)} to train on, {_counted(made.val)} held out")
    for fact in made.facts:
        terminal.say(console, escape(fact))
    for note in made.odd:
        terminal.warn(console, note)
    place = made.folder.parent
    again = ["frossl", "pretrain", given.name]
    again += [] if place == DataOptions.data_dir else ["--data-dir", str(place)]
    console.print(f"Use it: {escape(shlex.join(again))}", soft_wrap=True, highlight=False)
    return 0


def _counted(images: Counter[str]) -> str:
    least, most = min(images.values()), max(images.values())
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return f"{images.total():,} images of {len(images)} classes, {each} a class,"
