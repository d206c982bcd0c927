"""``frossl export``: the encoder of a run for use elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from frossl.runs.directory import Weights
from frossl.runs.export import Format, export_encoder


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the encoder of a run for use elsewhere, and say how to load it there."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """run directory"""
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """file to write, .safetensors, or .onnx with --format onnx"""
    format: Annotated[Format, tyro.conf.arg(help_behavior_hint="")] = "timm"
    """names of the keys: timm's, or torchvision's for nets that both have; onnx is a program for any batch"""
    weights: Weights = "online"
    """of the trained network, or of its moving average (byol, dino, mocov2plus)"""


def run(args: list[str], console: Console) -> int:
    given = tyro.cli(Export, prog="frossl export", args=args)
    print(export_encoder(given.run, given.output, given.format, given.weights))
    return 0
