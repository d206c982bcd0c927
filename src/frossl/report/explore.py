"""The page of ``frossl explore``: a map and lists of a collection, in one file."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frossl.core.files import write_text
from frossl.curate.findings import Findings
from frossl.data.whole import HELD_OUT, TRAIN
from frossl.report.page import render_page
from frossl.report.pictures import shown, to_pil, to_uri

GROUPS, IN_GROUP, OUTLIERS, OF_CLUSTER, DOUBTED, FIRST = 40, 8, 48, 8, 60, 100
"""Most groups, images of one, outliers, typical and odd images of a cluster, doubted labels and choices on the page."""
ACROSS = 32
"""Cells in a row and in a column of a sheet of thumbnails."""
FORMS = ((32, 60), (32, 40), (32, 20), (24, 30), (24, 15))
"""Pixels of a thumbnail and quality of JPEG, from the best on, of which the first that fits is taken."""
BUDGET = 9_000_000
"""Bytes of all thumbnails, of which base64 makes 12 MB."""
SPLITS: list[str] = ["", TRAIN, HELD_OUT]
NOWHERE = 65535
"""Place of what is not on the map."""


@dataclass(frozen=True, eq=False)
class Collection:
    """N images by number: ``paths``, ``splits`` and ``labels`` in words, ``classes_N`` as numbers of ``classes``.

    ``pictures`` are uint8 ``(N, C, 32, 32)``, None where the images are not there any more.
    """

    name: str
    paths: Sequence[str]
    splits: list[str]
    labels: Sequence[str | None]
    classes: tuple[str, ...]
    classes_N: Tensor
    pictures: Tensor | None
    notes: tuple[str, ...]


def write_page(
    output: Path, of: Collection, encoders: dict[str, Findings], titles: dict[str, str], lists: dict[str, str]
) -> dict[str, Any]:
    """Writes the page of ``encoders``, with ``titles`` that say what each is, and ``lists``, files and what is in each.

    Gives how many images and thumbnails are on it, and its size in bytes.
    """
    listed = sorted({i for found in encoders.values() for i in _listed(found, of)})
    mapped = {i for found in encoders.values() for i in found.mapped.tolist()}
    included = [*listed, *sorted(mapped - {*listed})]
    sheets, cell, thumbnails = _sheets(of.pictures, included)
    local = {i: j for j, i in enumerate(included)}
    index = torch.tensor(included)
    told = {
        "paths": [of.paths[i] for i in included],
        "labels": [of.labels[i] for i in included],
        "classes": of.classes,
        "splits": [name for name in dict.fromkeys(of.splits) if name],
        "class": _packed(of.classes_N[index] + 1, np.uint16),
        "split": _packed([SPLITS.index(of.splits[i]) for i in included], np.uint8),
        "across": ACROSS,
        "thumbnails": thumbnails,
        "encoders": [_encoder(name, found, of, local, index) for name, found in encoders.items()],
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
        found=next(iter(encoders.values())),
        classes=of.classes,
        divided=any(of.splits),
        told=told,
        thumbs=sheets,
    )
    write_text(output, page)
    return {"images": len(included), "thumbnails": thumbnails, "bytes": output.stat().st_size}


def _listed(found: Findings, of: Collection) -> list[int]:
    """The images of all lists of the page."""
    images = [i for group in found.groups[:GROUPS] for i in group.images[:IN_GROUP]]
    images += found.outliers.argsort(descending=True)[:OUTLIERS].tolist() + found.label_first[:FIRST].tolist()
    images += [i for part in _clusters(found) for i in (*part["typical"], *part["odd"])]
    return images + [row["i"] for row in _doubted(found, of)]


def _clusters(found: Findings) -> list[dict[str, Any]]:
    """Of each cluster its size and the images nearest to its centre and farthest from it."""
    parts = []
    for cluster in range(int(found.cluster.max()) + 1):
        images = (found.cluster == cluster).nonzero()[:, 0]
        order = images[found.near[images].argsort(descending=True, stable=True)].tolist()
        odd = order[OF_CLUSTER:][::-1][:OF_CLUSTER]
        parts.append({"size": len(order), "typical": order[:OF_CLUSTER], "odd": odd})
    return parts


def _doubted(found: Findings, of: Collection) -> list[dict[str, Any]]:
    """The labels that are doubted most."""
    s = found.suspicion
    if s is None:
        return []
    order = s.score.argsort(descending=True, stable=True)[:DOUBTED]
    return [
        {
            "i": int(found.labelled[k]),
            "believed": of.classes[int(s.believed[k])],
            "p": round(s.probability[k].item(), 3),
            "given": round(s.given[k].item(), 3),
        }
        for k in order.tolist()
        if s.score[k] > 0
    ]


def _encoder(name: str, found: Findings, of: Collection, local: dict[int, int], index: Tensor) -> dict[str, Any]:
    """What the page knows of one encoder, images by their number on the page."""
    places = torch.full((len(of.paths), 2), NOWHERE, dtype=torch.long)
    span = (found.places.max(0).values - found.places.min(0).values).clamp_min(1e-9)
    places[found.mapped] = ((found.places - found.places.min(0).values) / span * (NOWHERE - 1)).long()
    doubt = torch.zeros(len(of.paths))
    if found.suspicion is not None:
        doubt[found.labelled] = 1 + (found.suspicion.score + 1) / 2 * 254  # 0 is unknown
    score = found.outliers.argsort(descending=True)[:OUTLIERS].tolist()
    here = {
        "groups": [
            {"images": [local[i] for i in g.images[:IN_GROUP]], "size": len(g.images), "alike": round(g.alike, 3)}
            for g in found.groups[:GROUPS]
        ],
        "outliers": [{"i": local[i], "score": round(found.outliers[i].item(), 3)} for i in score],
        "clusters": [
            {"size": part["size"], **{kind: [local[i] for i in part[kind]] for kind in ("typical", "odd")}}
            for part in _clusters(found)
        ],
        "doubted": [row | {"i": local[row["i"]]} for row in _doubted(found, of)],
        "first": [local[i] for i in found.label_first[:FIRST].tolist()],
    }
    return {
        "name": name,
        "map": found.map_kind,
        "x": _packed(places[index, 0], np.uint16),
        "y": _packed(places[index, 1], np.uint16),
        "cluster": _packed(found.cluster[index], np.uint16),
        "doubt": _packed(doubt[index], np.uint8),
        "totals": {"groups": len(found.groups), "flagged": _flagged(found)},
        "lists": here,
    }


def _flagged(found: Findings) -> int:
    return 0 if found.suspicion is None else int(found.suspicion.flagged.sum())


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

    def sheet(part: Sequence[int], form: tuple[int, int]) -> str:
        return to_uri(_sheet(pictures_NCHW[torch.tensor(part)], form[0]), "jpeg", form[1])

    tried = parts[len(parts) // 2]  # not the lists alone, which are odd pictures
    sizes = {form: len(sheet(tried, form)) * 3 / 4 / len(tried) for form in FORMS}
    form = next((form for form in FORMS if sizes[form] * len(included) <= BUDGET), FORMS[-1])
    fitting = math.ceil(BUDGET / sizes[form] / per_sheet)
    return [sheet(part, form) for part in parts[:fitting]], form[0], sum(map(len, parts[:fitting]))


def _sheet(pictures_NCHW: Tensor, cell: int) -> Image.Image:
    """Pictures in rows of :data:`ACROSS`."""
    down = math.ceil(len(pictures_NCHW) / ACROSS)
    pictures = torch.stack([shown(x) for x in pictures_NCHW])
    channels, side = pictures.shape[1:3]
    grid = torch.zeros(down * ACROSS, channels, side, side, dtype=torch.uint8)
    grid[: len(pictures)] = pictures
    whole = grid.view(down, ACROSS, channels, side, side).permute(2, 0, 3, 1, 4)
    picture = to_pil(whole.reshape(channels, down * side, ACROSS * side))
    return picture if cell == side else picture.resize((ACROSS * cell, down * cell), Image.Resampling.LANCZOS)
