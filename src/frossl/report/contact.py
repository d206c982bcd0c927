"""A contact sheet: some images and their views by a recipe, each with its parameters written below."""

from __future__ import annotations

import math
import textwrap

from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from frossl.data.loader import epoch_order
from frossl.data.types import Dataset
from frossl.report.gallery import views_of_image
from frossl.report.pictures import to_pil
from frossl.views.recipes import Recipe, left_out

CELL, GAP, LINE, SPACING, LETTERS = 224, 10, 14, 3, 36
"""Width of a picture, space between pictures, height of a line, space in it, all in pixels; letters of a line."""
SPELT = str.maketrans({"×": "x", "−": "-", "σ": "sigma"})
"""What the font that comes with Pillow cannot write."""


def contact_sheet(data: Dataset, recipe: Recipe, *, images: int = 4, seed: int = 0) -> Image.Image:
    """One row for each of the first images that a run with ``seed`` would see: the image, then its views."""
    channels = {1: "grey", 3: "colour"}.get(data.channels, f"{data.channels} channels, row by row")
    rows = []
    for i in epoch_order(len(data.train), seed, 0)[:images].tolist():
        shown, views = views_of_image(data, recipe, i, seed)
        height, width = shown.image.shape[1:]
        instead = [f"in place of {i}, unreadable"] if shown.skipped else []
        cells = [(shown.image, [f"image {shown.chosen}: {width}x{height}", *instead, channels]), *views]
        rows.append([(picture, _wrapped(text)) for picture, text in cells])
    return _sheet(rows, left_out(recipe, data.channels))


def _wrapped(text: list[str]) -> str:
    parts = [part for one in text for part in one.translate(SPELT).split(": ")]
    return "\n".join(line for part in parts for line in textwrap.wrap(part, LETTERS))


def _sheet(rows: list[list[tuple[Tensor, str]]], note: str) -> Image.Image:
    lines = 1 + max(text.count("\n") for row in rows for _, text in row)
    width, height, start = CELL + GAP, CELL + GAP + LINE * lines + GAP, GAP + (LINE + GAP) * bool(note)
    sheet = Image.new("RGB", (GAP + width * max(map(len, rows)), start + height * len(rows)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(LINE - SPACING)
    pen.text((GAP, GAP), note, "black", font)
    for i, row in enumerate(rows):
        for j, (picture, text) in enumerate(row):
            left, top = GAP + j * width, start + i * height
            sheet.paste(_enlarged(picture), (left, top))
            pen.text((left, top + CELL + GAP // 2), text, "black", font, spacing=SPACING)
    return sheet


def _side_by_side(image_CHW: Tensor) -> Tensor:
    """All channels in grey, in rows."""
    from torchvision.utils import make_grid  # torchvision takes long to import

    across = math.ceil(math.sqrt(len(image_CHW)))
    return make_grid(image_CHW[:, None], nrow=across, padding=1, pad_value=255)[:1]


def _enlarged(image_CHW: Tensor) -> Image.Image:
    """In the middle of a cell: with whole pixels where two or more times as many fit, else fitted smoothly."""
    picture = to_pil(image_CHW if len(image_CHW) in (1, 3) else _side_by_side(image_CHW))
    times = CELL // max(picture.size)
    if times >= 2:
        picture = ImageOps.scale(picture, times, Image.Resampling.NEAREST)
    else:
        picture = ImageOps.contain(picture, (CELL, CELL), Image.Resampling.BICUBIC)
    cell = Image.new("RGB", (CELL, CELL), "#eeeeee")
    cell.paste(picture, ((CELL - picture.width) // 2, (CELL - picture.height) // 2))
    return cell
