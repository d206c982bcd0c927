"""A contact sheet: what a view recipe makes of some images, with what was drawn written under each view."""

from __future__ import annotations

import textwrap

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from frossl.data.loader import epoch_order
from frossl.data.types import Dataset
from frossl.report.gallery import described_views
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
        original = data.train.images[i]
        height, width = original.shape[1:]
        first = (original, [f"image {i}: {width}x{height}", channels])
        rows.append([first, *described_views(data, recipe, i, original, seed)])
    return _sheet(rows, left_out(recipe, data.channels))


def _sheet(rows: list[list[tuple[Tensor, list[str]]]], note: str) -> Image.Image:
    lines = [[_wrapped(text) for _, text in row] for row in rows]
    heights = [CELL + GAP + LINE * max(map(len, row)) + GAP for row in lines]
    across, top = max(len(row) for row in rows), GAP + (LINE + GAP) * bool(note)
    sheet = Image.new("RGB", (GAP + across * (CELL + GAP), top + sum(heights)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    pen.text((GAP, GAP), note, fill="black", font=font)
    for row, texts, height in zip(rows, lines, heights, strict=True):
        for column, ((picture, _), text) in enumerate(zip(row, texts, strict=True)):
            left = GAP + column * (CELL + GAP)
            sheet.paste(_enlarged(picture), (left, top))
            for number, line in enumerate(text):
                pen.text((left, top + CELL + GAP // 2 + number * LINE), line, fill="black", font=font)
        top += height
    return sheet


def _wrapped(text: list[str]) -> list[str]:
    parts = [part for one in text for part in one.translate(SPELT).split(": ")]
    return [line for part in parts for line in textwrap.wrap(part, LETTERS)]


def _enlarged(image_CHW: Tensor) -> Image.Image:
    """In the middle of a cell: with whole pixels where two or more times as many fit, else fitted smoothly."""
    picture = to_pil(image_CHW)
    longer = max(picture.size)
    small = 2 * longer <= CELL
    times = CELL // longer if small else CELL / longer
    size = (max(1, round(picture.width * times)), max(1, round(picture.height * times)))
    how = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
    cell = Image.new("RGB", (CELL, CELL), "#eeeeee")
    cell.paste(picture.resize(size, how), ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell
