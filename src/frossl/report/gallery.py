"""The pictures of a report: views, neighbours, typical images, near-duplicates, the map and the confusion matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from frossl.data.loader import epoch_order, views_of
from frossl.data.types import Dataset
from frossl.report import figures
from frossl.report.look import (
    Look,
    Twins,
    chosen,
    confused_pairs,
    confusion,
    nearest,
    spread_over_classes,
    twins,
    typicality,
)
from frossl.report.pictures import sheet, thumbnail
from frossl.report.table import minus
from frossl.runs.record import Record
from frossl.views.draw import ORDERS, Drawn, draw
from frossl.views.recipes import Recipe, View

IMAGES_WITH_VIEWS, VIEWS_SHOWN = 4, 8
QUERIES, NEAREST = 8, 8
TYPICAL = 10
PAIRS = 6
SAME = 0.99
"""Pixel correlation from which two pictures count as nearly the same."""


def show_views(record: Record, data: Dataset) -> list[dict[str, Any]]:
    """The first images that the run saw, with the views it made of them and what was drawn for each."""
    seed, recipe = record.config["seed"], record.recipe
    index = epoch_order(len(data.train), seed, 0)[:IMAGES_WITH_VIEWS]
    rows = []
    for i, original in zip(index.tolist(), chosen(data.train, index), strict=True):
        views = [{"src": thumbnail(x, 112), "text": t} for x, t in described_views(data, recipe, i, original, seed)]
        rows.append({"src": thumbnail(original, 112), "views": views[:VIEWS_SHOWN], "more": len(views[VIEWS_SHOWN:])})
    return rows


def described_views(
    data: Dataset, recipe: Recipe, i: int, original: Tensor, seed: int
) -> list[tuple[Tensor, list[str]]]:
    """The views, uint8, that a run with ``seed`` first makes of training image ``i``, each with what was done to it."""
    one, (height, width) = torch.tensor([i]), original.shape[1:]
    drawn = draw(recipe, seed=seed, epoch=0, index_N=one, height=height, width=width)
    made = views_of(data.train, recipe, one, [0.0] * data.channels, [1.0] * data.channels, seed=seed)
    pictures = [x[0].mul(255).round().clamp(0, 255).byte() for group in made for x in group]
    sizes = list(dict.fromkeys(group.size for group in recipe))  # groups of one resolution come out together
    groups = sorted(zip(recipe, drawn, strict=True), key=lambda pair: sizes.index(pair[0].size))
    texts = [
        describe_view(group, d, v, height, width, data.channels) for group, d in groups for v in range(group.count)
    ]
    return list(zip(pictures, texts, strict=True))


def describe_view(group: View, drawn: Drawn, v: int, height: int, width: int, channels: int) -> list[str]:
    """What was done to the image, in the order in which it was done; only what was done."""
    top, left, h, w = (int(x[v, 0]) for x in (drawn.top, drawn.left, drawn.height, drawn.width))
    coloured = channels == 3
    said = [f"{h * w / (height * width):.0%} of the area: {w}×{h} at ({left}, {top})"]
    if drawn.jitter[v, 0]:
        brightness, contrast, saturation, hue = drawn.factors[v, 0].tolist()
        changes = (
            f"brightness ×{brightness:.2f}" * (group.brightness > 0),
            f"contrast ×{contrast:.2f}" * (group.contrast > 0),
            f"saturation ×{saturation:.2f}" * (coloured and group.saturation > 0),
            minus(f"hue {360 * hue:+.0f}°") * (coloured and group.hue > 0),
        )
        said += [changes[kind] for kind in ORDERS[int(drawn.order[v, 0])] if changes[kind]]
    said += ["grey"] * (coloured and bool(drawn.grayscale[v, 0]))
    said += [f"blur σ {drawn.sigma[v, 0]:.2f}"] * bool(drawn.blur[v, 0])
    said += ["solarised"] * bool(drawn.solarize[v, 0])
    said += ["upside down"] * bool(drawn.vertical[v, 0])
    return said + ["mirrored"] * bool(drawn.flip[v, 0])


def class_of(seen: Look, split: str, place: int) -> str | None:
    """Name of the class of an image of the sample."""
    labels = getattr(seen.data, split).labels
    if not seen.data.classes or labels is None:
        return None
    return seen.data.classes[int(labels[place])] if labels[place] >= 0 else "unlabelled"


def picture(seen: Look, split: str, place: int, note: str = "") -> dict[str, Any]:
    """A thumbnail with its class and a note."""
    image = chosen(getattr(seen.data, split), torch.tensor([place]))[0]
    return {"src": thumbnail(image), "label": class_of(seen, split, place), "note": note}


def show_neighbours(seen: Look) -> list[dict[str, Any]]:
    """Held-out images, each with the training images nearest to it."""
    queries = spread_over_classes(seen, QUERIES)
    similarity, places = nearest(seen.features, queries, NEAREST)
    rows = []
    for q, s, p in zip(queries.tolist(), similarity.tolist(), places.tolist(), strict=True):
        query = picture(seen, "test", q)
        found = [picture(seen, "train", i, f"{x:.2f}") for x, i in zip(s, p, strict=True)]
        for one in found:
            one["same"] = None if query["label"] is None else one["label"] == query["label"]
        rows.append({"query": query, "found": found})
    return rows


def show_typical(seen: Look) -> dict[str, list[dict[str, Any]]]:
    """Held-out images that are most and least like their neighbours."""
    values = typicality(seen.features.test_NF)
    order = values.argsort(descending=True).tolist()
    count = min(TYPICAL, len(order) // 2)
    pick = {"most": order[:count], "least": order[::-1][:count]}
    return {k: [picture(seen, "test", i, f"{values[i]:.2f}") for i in places] for k, places in pick.items()}


def show_twins(seen: Look) -> dict[str, Any]:
    """Pairs across the split that are most alike, and how many are nearly the same."""
    found = twins(seen)
    order = found.alike.argsort(descending=True, stable=True)[:PAIRS].tolist()
    pairs = [_pair(seen, found, i) for i in order]
    return {"pairs": pairs, "same": int((found.alike >= SAME).sum()), "of": len(found.alike), "in": found.searched}


def _pair(seen: Look, found: Twins, place: int) -> dict[str, Any]:
    other = chosen(found.split, found.where[place : place + 1])[0]
    return {
        "held_out": picture(seen, "test", place),
        "train": {"src": thumbnail(other), "label": _class_in(seen, found, place), "note": ""},
        "alike": f"{found.alike[place]:.3f}",
    }


def _class_in(seen: Look, found: Twins, place: int) -> str | None:
    labels = found.split.labels
    if not seen.data.classes or labels is None:
        return None
    label = int(labels[found.where[place]])
    return seen.data.classes[label] if label >= 0 else "unlabelled"


def show_map(seen: Look) -> dict[str, Any]:
    """The map, the sheet of pictures of its points, and what is written under each."""
    drawn, places = figures.map_figure(seen)
    source, across = sheet(chosen(seen.data.test, torch.tensor(places)))
    labels = [class_of(seen, "test", i) or f"held-out image {i + 1}" for i in places]
    return {"figure": drawn, "sheet": source, "across": across, "labels": labels}


def show_confusion(seen: Look) -> dict[str, Any] | None:
    """The matrix, if it is readable, and the commonest mistakes; None without labels."""
    if not seen.data.classes:
        return None
    counts: Tensor = confusion(seen.features)
    classes = seen.data.classes
    few = len(classes) <= figures.CLASSES_IN_MATRIX
    return {
        "figure": figures.confusion_figure(counts, classes) if few else None,
        "pairs": confused_pairs(counts, classes),
        "right": int(counts.trace()) / max(int(counts.sum()), 1),
        "of": int(counts.sum()),
    }
