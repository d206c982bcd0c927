"""Runs that are over in a second."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from PIL import Image

from frossl.methods import METHODS
from frossl.runs.config import Config

HOSTILE = ("<img src=x onerror=alert(1)>", '"&amp;</script>', "{{ 7 * 7 }}")
"""Names of classes that would do harm in a page that trusts them."""


def folder(root: Path, classes: tuple[str, ...] = ("dark", "bright"), count: int = 48) -> Path:
    """Soft blots, a little brighter from class to class, 16 pixels wide; flat without classes."""
    generator = torch.Generator().manual_seed(0)
    for i in range(count):
        which = i % max(len(classes), 1)
        blots = torch.rand(1, 3, 4, 4, generator=generator) * 160 + 40 * which
        pixels = torch.nn.functional.interpolate(blots, size=16, mode="bilinear")[0].permute(1, 2, 0).byte()
        path = root / (classes[which].replace("/", "∕") if classes else "") / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(path)
    return root


def config(data: Path, out: Path, **changes) -> Config:
    return dataclasses.replace(
        Config(
            data=str(data),
            out=out,
            objective=METHODS["frossl"].Config(projector="16-bn-relu-16"),
            backbone_options='{"channels": [16, 16, 16, 16], "layers": [1, 1, 1, 1]}',
            batch=8,
            views=3,
            length="2ep",
            log_every=1,
            monitor_every="30%",
            held_out=0.25,
            workers=0,
            data_dir=out / "data",
        ),
        **changes,
    )
