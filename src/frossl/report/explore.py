"""The page of ``frossl explore``: a map and lists of a collection, in one file."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frossl.core.files import write_text
from frossl.curate.findings import Findings
from frossl.data.whole import HELD_OUT, TRAIN
from frossl.report.page import render_page
from frossl.report.pictures import sheet

GROUPS, IN_GROUP, OUTLIERS, OF_CLUSTER, DOUBTED, FIRST = 40, 8, 48, 8, 60, 100
"""Most groups, images of one, outliers, typical and odd images of a cluster, doubted labels and choices on the page."""
ACROSS = 32
"""Cells in a row and in a column of a sheet of thumbnails."""
FORMS = ((32, 60), (32, 40), (32, 20), (24, 30), (24, 15))
"""Pixels of a thumbnail and JPEG quality, from the best on; the first with which all thumbnails fit is used."""
BUDGET = 9_000_000
"""Bytes of all thumbnails, of which base64 makes 12 MB."""
SPLITS: list[str] = ["", TRAIN, HELD_OUT]
NOWHERE = 65535
"""Coordinate of images that are not on the map."""


@dataclass(frozen=True, eq=False)
class Collection:
    """N images by number: ``paths``, ``splits`` and ``labels`` in words, ``classes_N`` as indices into ``classes``.

    ``pictures`` are uint8 ``(N, C, 32, 32)``, None where the images are not there any more.
    """

    name: str
    paths: Sequence[str]
    splits: Sequence[str]
    labels: Sequence[str | None]
    classes: tuple[str, ...]
    classes_N: Tensor
    pictures: Tensor | None
    notes: Sequence[str]


def write_page(
    output: Path, of: Collection, encoders: dict[str, Findings], titles: dict[str, str], lists: dict[str, str]
) -> dict[str, int]:
    """Writes the page of ``encoders``, with their ``titles``, and of ``lists``, the files beside it and their contents.

    Returns the number of images and of thumbnails on it, and its size in bytes.
    """
    places: dict[int, int] = {}  # of each image of the collection that is on the page, its number there

    def place(i: int) -> int:
        return places.setdefault(i, len(places))

    shown = [_lists(found, of, place) for found in encoders.values()]  # first, so that these have thumbnails
    mapped = sorted({i for found in encoders.values() for i in found.mapped.tolist()})
    for i in mapped:
        place(i)
    included = list(places)
    index = torch.tensor(included)
    sheets, cell, thumbnails = _sheets(of.pictures, included)
    data = {
        "paths": [of.paths[i] for i in included],
        "labels": [of.labels[i] for i in included],
        "classes": of.classes,
        "splits": [name for name in dict.fromkeys(of.splits) if name],
        "class": _packed(of.classes_N[index] + 1, np.uint16),
        "split": _packed([SPLITS.index(of.splits[i]) for i in included], np.uint8),
        "across": ACROSS,
        "thumbnails": thumbnails,
        "encoders": [
            {"name": name, "lists": listed, **_encoder(found, len(of.paths), index)}
            for (name, found), listed in zip(encoders.items(), shown, strict=True)
        ],
    }
    notes = list(of.notes)
    if of.pictures is not None and thumbnails < len(included):
        notes.append(
            f"{thumbnails:,} of {len(included):,} images here have thumbnails of {cell} pixels, first those of lists, "
            "so that the page stays small; others show their path"
        )
    if len(included) < len(of.paths):
        notes.append(f"the map has {len(mapped):,} of {len(of.paths):,} images, spread evenly; lists are of all")
    page = render_page(
        "explore.html.j2",
        kind="explore",
        title=of.name,
        count=len(of.paths),
        encoders=titles,
        lists=lists,
        notes=notes,
        doubts=next(iter(encoders.values())).suspicion is not None,
        data=data,
        thumbs=sheets,
    )
    write_text(output, page)
    return {"images": len(included), "thumbnails": thumbnails, "bytes": output.stat().st_size}


def _lists(found: Findings, of: Collection, place: Callable[[int], int]) -> dict[str, Any]:
    """The lists of the page, images by their :func:`place`."""

    def places(images: Sequence[int]) -> list[int]:
        return [place(i) for i in images]

    clusters, doubted = [], []
    for cluster in range(int(found.cluster.max()) + 1):
        images = (found.cluster == cluster).nonzero()[:, 0]
        order = images[found.near[images].argsort(descending=True, stable=True)].tolist()
        typical, odd = places(order[:OF_CLUSTER]), places(order[OF_CLUSTER:][::-1][:OF_CLUSTER])
        clusters.append({"size": len(order), "typical": typical, "odd": odd})
    if (s := found.suspicion) is not None:
        for k in s.score.argsort(descending=True, stable=True)[:DOUBTED].tolist():
            if s.score[k] > 0:
                believed = of.classes[int(s.believed[k])]
                p, given = round(s.probability[k].item(), 3), round(s.given[k].item(), 3)
                doubted.append({"i": place(int(found.labelled[k])), "believed": believed, "p": p, "given": given})
    return {
        "groups": [
            {"images": places(g.images[:IN_GROUP]), "size": len(g.images), "alike": round(g.alike, 3)}
            for g in found.groups[:GROUPS]
        ],
        "outliers": [
            {"i": place(i), "score": round(found.outliers[i].item(), 3)}
            for i in found.outliers.argsort(descending=True)[:OUTLIERS].tolist()
        ],
        "clusters": clusters,
        "doubted": doubted,
        "first": places(found.label_first[:FIRST].tolist()),
    }


def _encoder(found: Findings, count: int, index: Tensor) -> dict[str, Any]:
    """What the page shows by one encoder of the images at ``index``, of ``count``, beside the lists."""
    places = torch.full((count, 2), NOWHERE, dtype=torch.long)
    low, high = found.places.min(0).values, found.places.max(0).values
    places[found.mapped] = ((found.places - low) / (high - low).clamp_min(1e-9) * (NOWHERE - 1)).long()
    doubt = torch.zeros(count)  # 0 is unknown
    if found.suspicion is not None:
        doubt[found.labelled] = 1 + (found.suspicion.score + 1) / 2 * 254
    return {
        "map": found.map_kind,
        "x": _packed(places[index, 0], np.uint16),
        "y": _packed(places[index, 1], np.uint16),
        "cluster": _packed(found.cluster[index], np.uint16),
        "doubt": _packed(doubt[index], np.uint8),
        "groups": len(found.groups),
    }


def _packed(numbers: Any, kind: Any) -> str:
    """Numbers as base64 of a little-endian array."""
    array = np.asarray(numbers).astype(np.dtype(kind).newbyteorder("<"))
    return base64.b64encode(array.tobytes()).decode()


def _sheets(pictures_NCHW: Tensor | None, included: Sequence[int]) -> tuple[list[str], int, int]:
    """Sheets of thumbnails of as many images as fit, from the first on, their pixels on a side, and how many fit."""
    if pictures_NCHW is None:
        return [], 0, 0
    per_sheet = ACROSS * ACROSS
    parts = [included[start : start + per_sheet] for start in range(0, len(included), per_sheet)]

    def encode(part: Sequence[int], form: tuple[int, int]) -> str:
        return sheet([pictures_NCHW[i] for i in part], ACROSS, *form)

    middle = parts[len(parts) // 2]  # those of lists, which come first, are unusual pictures
    sizes = {form: len(encode(middle, form)) * 3 / 4 / len(middle) for form in FORMS}
    form = next((form for form in FORMS if sizes[form] * len(included) <= BUDGET), FORMS[-1])
    fitting = parts[: math.ceil(BUDGET / sizes[form] / per_sheet)]
    return [encode(part, form) for part in fitting], form[0], sum(map(len, fitting))
