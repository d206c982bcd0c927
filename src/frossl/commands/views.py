"""``frossl views``: what a view recipe makes of some images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from frossl.core.files import write_atomically
from frossl.core.types import UserError
from frossl.data.open import join_sources
from frossl.report.contact import contact_sheet
from frossl.report.terminal import detail, wrote
from frossl.runs.config import Config, Images
from frossl.runs.data import load_run_data
from frossl.train.plan import make_plan


@dataclass(frozen=True, kw_only=True)
class Views(Images):
    """Show what a view recipe makes of a few images, with what was drawn for each view, in one picture."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("views.png")
    """picture to write"""
    images: int = 4
    """how many images, one in each row"""
    view_recipe: str = "auto"
    """augmentation (frossl list recipes); auto by the channels of the data"""
    views: int | None = None
    """views per image (the recipe's number if not given)"""
    size: int | None = None
    """side of the views in pixels, as in frossl pretrain"""


def run(args: list[str], console: Console) -> int:
    given = tyro.cli(Views, prog="frossl views", args=join_sources(args))
    if given.images < 1:
        raise UserError(f"--images must be at least 1, got {given.images}")
    if given.output.suffix.lower() != ".png":
        raise UserError(f"-o {given.output}: the picture is a PNG; give a name that ends in .png")
    if not given.output.parent.is_dir():
        raise UserError(f"-o {given.output}: there is no directory {given.output.parent}; make it first")
    data = load_run_data(given, detail(console))
    names = ("data", "view_recipe", "views", "size")
    own = {name: getattr(given, name) for name in names}
    recipe = make_plan(Config(**own, **given.data_options(), batch=2, device="cpu"), data).recipe
    sheet = contact_sheet(data, recipe, images=given.images, seed=given.seed)
    write_atomically(given.output, lambda path: sheet.save(path, "PNG"))
    wrote(console, "Views", given.output)
    return 0
