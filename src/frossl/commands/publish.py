"""``frossl publish``: the encoder of a run as a folder or a repository that timm loads, with a model card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from frossl.report import terminal
from frossl.report.card import model_card
from frossl.runs.directory import Weights, resume_command
from frossl.runs.publish import CARD, CONFIG, UNKNOWN, Published, publish_encoder


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Write the encoder of a run with timm's configuration, a model card and checksums, for others to load."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """run directory"""
    to: Annotated[str, tyro.conf.arg(metavar="PLACE")]
    """a folder, or hf:ORG/NAME for a repository of the Hugging Face Hub"""
    licence: Annotated[str | None, tyro.conf.arg(metavar="ID")] = None
    """of the weights, such as mit, apache-2.0 or cc-by-4.0 (that of the weights it started from if not given)"""
    weights: Weights = "online"
    """of the trained network, or of its moving average (byol, dino, mocov2plus)"""


def run(args: list[str], console: Console) -> int:
    given = tyro.cli(Publish, prog="frossl publish", args=args)
    published = publish_encoder(given.run, given.to, model_card, licence=given.licence or "", weights=given.weights)
    terminal.wrote(console, "Published", Path(given.to))
    terminal.say(console, f"{CARD} says how to load it; so loaded, it gives the same features to the bit")
    for note in notes(published, given.run):
        terminal.warn(console, note)
    return 0


def notes(published: Published, run: Path) -> Iterator[str]:
    """What the card says that is not as good as it could be, and what to do about it."""
    if published.stopped:
        yield f"Training was stopped at {published.stopped}, and the card says so. Go on with: {resume_command(run)}"
    if published.evaluation is None:
        yield f"The card says that it was not evaluated; publish it again after: frossl evaluate {run}"
    if published.licence == UNKNOWN:
        yield "The card says that its licence is unknown; publish it again with --licence mit, or another"
    if not published.in_timm:
        yield f"timm has no {published.spec.stem} stem: there is no {CONFIG}, and the card has Python that loads it"
