"""The sections of a report with pictures: views, neighbours, typical images, near-duplicates, map, confusion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from frossl.curate.neighbours import nearest
from frossl.data.loader import epoch_order, views_of
from frossl.data.sources import Shown, show
from frossl.data.types import Dataset, Split
from frossl.report import figures
from frossl.report.inspection import (
    InspectedEncoder,
    confused_pairs,
    confusion,
    near_duplicates,
    spread_over_classes,
)
from frossl.report.pictures import sheet, thumbnail
from frossl.report.table import minus
from frossl.report.verdict import duplicates_warning
from frossl.views.params import ORDERS, ViewParams, sample_params
from frossl.views.recipes import Recipe, View

IMAGES_WITH_VIEWS, VIEWS_SHOWN, VIEW_SIDE = 4, 8, 112
QUERIES, NEAREST = 8, 8
NEIGHBOURS = 10
TYPICAL = 10
PAIRS = 6
SAME = 0.99
"""Pixel correlation from which two pictures count as nearly the same."""


def show_views(data: Dataset, recipe: Recipe, seed: int) -> list[dict[str, Any]]:
    """The first images that a run with ``seed`` saw, with the views it made of them and their parameters."""
    rows = []
    for i in epoch_order(len(data.train), seed, 0)[:IMAGES_WITH_VIEWS].tolist():
        shown, views = views_of_image(data, recipe, i, seed)
        others = [{"src": thumbnail(x, VIEW_SIDE), "notes": text} for x, text in views[:VIEWS_SHOWN]]
        instead = ["in place of one that cannot be read"] if shown.skipped else []
        first = {"src": thumbnail(shown.image, VIEW_SIDE), "label": "image", "notes": instead}
        rows.append({"first": first, "others": others, "more": len(views[VIEWS_SHOWN:])})
    return rows


def views_of_image(data: Dataset, recipe: Recipe, i: int, seed: int) -> tuple[Shown, list[tuple[Tensor, list[str]]]]:
    """Training image ``i``, or its replacement if it is unreadable, and its views in the first epoch of a run.

    Views are uint8 ``(C, H, W)``, each with the operations that made it, in words.
    """
    shown, index = show(data.train.images, i), torch.tensor([i])
    height, width = shown.image.shape[1:]
    made = views_of(data.train, recipe, index, [0.0] * data.channels, [1.0] * data.channels, seed=seed)
    pictures = [x[0].mul(255).round().clamp(0, 255).byte() for group in made for x in group]
    params = sample_params(recipe, seed=seed, epoch=0, index_N=index, height=height, width=width)
    sizes = list(dict.fromkeys(group.size for group in recipe))  # groups of one resolution come out together
    groups = sorted(zip(recipe, params, strict=True), key=lambda pair: sizes.index(pair[0].size))
    texts = [describe_view(group, p, v, shown.image.shape) for group, p in groups for v in range(group.count)]
    return shown, list(zip(pictures, texts, strict=True))


def describe_view(group: View, params: ViewParams, v: int, shape: Sequence[int]) -> list[str]:
    """The operations that made view ``v`` of an image of ``shape`` ``(C, H, W)``, in their order."""
    channels, height, width = shape
    one = params.map(lambda x_VN: x_VN[v, 0])
    top, left, h, w = (int(x) for x in (one.top, one.left, one.height, one.width))
    said = [f"{h * w / (height * width):.0%} of the area: {w}×{h} at ({left}, {top})"]
    for kind in ORDERS[one.order] if one.jitter else ():
        name, factor = ("brightness", "contrast", "saturation", "hue")[kind], float(one.factors[kind])
        if getattr(group, name) > 0 and (channels == 3 or name in ("brightness", "contrast")):
            said.append(minus(f"hue {360 * factor:+.0f}°") if name == "hue" else f"{name} ×{factor:.2f}")
    others = {
        "grey": one.grayscale and channels == 3,
        f"blur σ {one.sigma:.2f}": one.blur,
        "solarised": one.solarize,
        "upside down": one.vertical,
        "mirrored": one.flip,
    }
    return said + [text for text, done in others.items() if done]


def show_encoder(seen: InspectedEncoder) -> dict[str, Any]:
    """All pictures that need features, by the name of their section."""
    return {
        "neighbours": show_neighbours(seen),
        "map": show_map(seen),
        "confusion": show_confusion(seen),
        "typical": show_typical(seen),
        "near_duplicates": show_near_duplicates(seen),
    }


def picture(split: Split, place: int, classes: Sequence[str], note: str = "") -> dict[str, Any]:
    """A thumbnail with its class, if there are any, and a note."""
    return {"src": thumbnail(split.images[place]), "label": class_of(split, place, classes), "notes": [note]}


def class_of(split: Split, place: int, classes: Sequence[str]) -> str:
    """Name of the class of an image, of all its labels, or its value; nothing without."""
    if split.labels is not None and split.labels.is_floating_point():
        return "unlabelled" if split.labels[place].isnan() else f"{split.labels[place]:.4g}"
    if not classes or split.labels is None:
        return ""
    if split.labels.ndim == 2:
        return ", ".join(name for name, has in zip(classes, split.labels[place].tolist(), strict=True) if has == 1)
    return [*classes, "unlabelled"][int(split.labels[place])]  # which is -1 where it is unknown


def show_neighbours(seen: InspectedEncoder) -> dict[str, Any]:
    """Held-out images, each with the training images nearest to it, and among how many these were found."""
    data, queries, rows = seen.data, spread_over_classes(seen, QUERIES), []
    names = data.classes or data.tags
    similarities, places = nearest(seen.features.train_NF, seen.features.test_NF[queries], NEAREST)
    for query, *found in zip(queries.tolist(), similarities.tolist(), places.tolist(), strict=True):
        first = picture(data.test, query, names)
        others = [picture(data.train, i, names, f"{x:.2f}") for x, i in zip(*found, strict=True)]
        if data.classes:
            others = [other | {"same": other["label"] == first["label"]} for other in others]
        rows.append({"first": first, "others": others})
    return {"rows": rows, "bank": len(data.train), "whole": len(seen.whole.train)}


def show_typical(seen: InspectedEncoder) -> dict[str, list[dict[str, Any]]]:
    """Held-out images that are most and least like their neighbours."""
    similarities, _ = nearest(seen.features.test_NF, seen.features.test_NF, NEIGHBOURS, same=True)
    values = similarities.mean(1)
    order = values.argsort(descending=True).tolist()
    count, names = min(TYPICAL, len(order) // 2), seen.data.classes or seen.data.tags

    def pictures(index: list[int]) -> list[dict[str, Any]]:
        return [picture(seen.data.test, i, names, f"{values[i]:.2f}") for i in index]

    return {"Most typical": pictures(order[:count]), "Least typical": pictures(order[::-1][:count])}


def show_near_duplicates(seen: InspectedEncoder) -> dict[str, Any]:
    """Pairs across the split that are most alike, and how many are nearly the same."""
    found, classes, rows = near_duplicates(seen), seen.data.classes or seen.data.tags, []
    for i in found.alike.argsort(descending=True, stable=True)[:PAIRS].tolist():
        other = picture(found.split, int(found.where[i]), classes)
        rows.append({"first": picture(seen.data.test, i, classes, f"{found.alike[i]:.3f}"), "others": [other]})
    same, of = int((found.alike >= SAME).sum()), len(found.alike)
    warning = duplicates_warning(same, of, SAME)
    return {"rows": rows, "same": same, "of": of, "searched": len(found.split), "warning": warning}


def show_map(seen: InspectedEncoder) -> dict[str, Any]:
    """The map, the sheet of pictures of its points, and what is written under each."""
    test = seen.data.test
    chart, places = figures.map_figure(seen)
    across = math.ceil(math.sqrt(len(places)))
    names = seen.data.classes or seen.data.tags
    labels = [class_of(test, i, names) or f"held-out image {i + 1}" for i in places]
    return {
        "figure": chart,
        "sheet": sheet([test.images[i] for i in places], across),
        "across": across,
        "labels": labels,
    }


def show_confusion(seen: InspectedEncoder) -> dict[str, Any] | None:
    """The matrix, if it is readable, and the commonest mistakes; None without labels."""
    classes = seen.data.classes
    if not classes:
        return None
    counts = confusion(seen.features)
    return {
        "figure": figures.confusion_figure(counts, classes) if len(classes) <= figures.CLASSES_IN_MATRIX else None,
        "pairs": confused_pairs(counts, classes),
        "right": int(counts.trace()) / max(int(counts.sum()), 1),
        "of": int(counts.sum()),
        "bank": len(seen.data.train),
    }
