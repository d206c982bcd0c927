"""A contact sheet: what a view recipe makes of some images, with what was drawn written under each view."""

from __future__ import annotations

import textwrap

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from frossl.data.loader import epoch_order, views_of
from frossl.data.types import Dataset
from frossl.report.gallery import describe_view
from frossl.views.draw import draw
from frossl.views.recipes import Recipe, left_out

CELL, GAP, LINE, LETTERS = 176, 10, 14, 29
"""Width of a picture, space between pictures, height and letters of a line of text; pixels where nothing is said."""


def contact_sheet(data: Dataset, recipe: Recipe, *, images: int = 4, seed: int = 0) -> Image.Image:
    """One row for each of the first images that a run with ``seed`` would see: the image, then its views."""
    groups = sorted(range(len(recipe)), key=lambda g: [r.size for r in recipe].index(recipe[g].size))
    rows = []
    for i in epoch_order(len(data.train), seed, 0)[:images].tolist():
        original, one = data.train.images[i], torch.tensor([i])
        height, width = original.shape[1:]
        drawn = draw(recipe, seed=seed, epoch=0, index_N=one, height=height, width=width)
        made = views_of(data.train, recipe, one, [0.0] * data.channels, [1.0] * data.channels, seed=seed)
        pictures = [x[0].mul(255).round().clamp(0, 255).byte() for group in made for x in group]
        texts = [describe_view(recipe[g], drawn[g], v, height, width) for g in groups for v in range(recipe[g].count)]
        first = (original, [f"image {i}", f"{height}x{width}, {data.channels} channels"])
        rows.append([first, *zip(pictures, texts, strict=True)])
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
    return [line for part in text for line in textwrap.wrap(part, LETTERS)]


def _enlarged(image_CHW: Tensor) -> Image.Image:
    """As it is, in the middle of a cell: whole pixels where it is smaller, fitted where it is larger; three channels.

    Of images without three channels, the first is shown in grey.
    """
    shown = image_CHW if image_CHW.shape[0] == 3 else image_CHW[:1].expand(3, -1, -1)
    picture = tv.to_pil_image(shown.contiguous())
    longer = max(picture.size)
    times = CELL // longer if longer <= CELL else CELL / longer
    size = (max(1, round(picture.width * times)), max(1, round(picture.height * times)))
    how = Image.Resampling.NEAREST if longer <= CELL else Image.Resampling.BICUBIC
    cell = Image.new("RGB", (CELL, CELL), "#eeeeee")
    cell.paste(picture.resize(size, how), ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell
