"""A contact sheet: what a view recipe makes of some images, with what was drawn written under each view."""

from __future__ import annotations

import textwrap

from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from frossl.data.loader import epoch_order
from frossl.data.types import Dataset
from frossl.report.gallery import views_of_image
from frossl.report.pictures import to_pil
from frossl.views.recipes import Recipe, left_out

CELL, GAP, LINE, LETTERS = 224, 10, 14, 36
"""Width of a picture, space between pictures, height and letters of a line of text; pixels where nothing is said."""
SPELT = str.maketrans({"×": "x", "−": "-", "σ": "sigma"})
"""What the font that comes with Pillow cannot write."""


def contact_sheet(data: Dataset, recipe: Recipe, *, images: int = 4, seed: int = 0) -> Image.Image:
    """One row for each of the first images that a run with ``seed`` would see: the image, then its views."""
    channels = {1: "grey", 3: "colour"}.get(data.channels, f"the first of {data.channels} channels")
    rows = []
    for i in epoch_order(len(data.train), seed, 0)[:images].tolist():
        image, views = views_of_image(data, recipe, i, seed)
        height, width = image.shape[1:]
        rows.append([(image, [f"image {i}: {width}x{height}", channels]), *views])
    return _sheet(rows, left_out(recipe, data.channels))


def _sheet(rows: list[list[tuple[Tensor, list[str]]]], note: str) -> Image.Image:
    texts = [["\n".join(_wrapped(text)) for _, text in row] for row in rows]
    heights = [CELL + GAP + LINE * (1 + max(text.count("\n") for text in row)) + GAP for row in texts]
    across, top = max(len(row) for row in rows), GAP + (LINE + GAP) * bool(note)
    sheet = Image.new("RGB", (GAP + across * (CELL + GAP), top + sum(heights)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    pen.text((GAP, GAP), note, "black", font)
    for row, below, height in zip(rows, texts, heights, strict=True):
        for column, ((image, _), text) in enumerate(zip(row, below, strict=True)):
            left = GAP + column * (CELL + GAP)
            sheet.paste(_enlarged(image), (left, top))
            pen.text((left, top + CELL + GAP // 2), text, "black", font, spacing=LINE - 11)
        top += height
    return sheet


def _wrapped(text: list[str]) -> list[str]:
    parts = [part for one in text for part in one.translate(SPELT).split(": ")]
    return [line for part in parts for line in textwrap.wrap(part, LETTERS)]


def _enlarged(image_CHW: Tensor) -> Image.Image:
    """In the middle of a cell: with whole pixels where two or more times as many fit, else fitted smoothly."""
    picture = to_pil(image_CHW)
    times = CELL // max(picture.size)
    if times >= 2:
        picture = ImageOps.scale(picture, times, Image.Resampling.NEAREST)
    else:
        picture = ImageOps.contain(picture, (CELL, CELL), Image.Resampling.BICUBIC)
    cell = Image.new("RGB", (CELL, CELL), "#eeeeee")
    cell.paste(picture, ((CELL - picture.width) // 2, (CELL - picture.height) // 2))
    return cell
