"""A page and lists of what is in a collection of images: ``frossl.explore``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import Tensor

from frossl.core.types import UserError
from frossl.curate.duplicates import SIDE
from frossl.curate.findings import AnalysisOptions, Findings, analyse
from frossl.curate.neighbours import MOST
from frossl.curate.probe import MANY_DOUBTS
from frossl.curate.space import evenly_spaced
from frossl.data.decode import UnreadableError
from frossl.data.open import is_there, source_name
from frossl.data.whole import Squares, Whole, square_batches
from frossl.report import terminal
from frossl.report.explore import Collection, write_page
from frossl.runs.config import Config
from frossl.runs.embeddings import About, Embeddings, data_frame, relabelled
from frossl.train.embed import (
    UNTRAINED,
    BatchOptions,
    default_encoder,
    embed_once,
    given_embeddings,
    open_images,
    open_images_and_encoder,
    untrained_like,
    write_csv,
)
from frossl.train.resources import device_of
from frossl.train.side_by_side import arm_names

LISTS = {
    "duplicates.csv": "near-duplicates in groups, the image to keep first",
    "outliers.csv": "all images, those farthest from the others first",
    "clusters.csv": "the cluster of each image, the most typical first",
    "labels.csv": "labelled images, those whose label is doubted most first",
    "label-first.csv": "images to label first, with an empty column for labels: frossl predict takes it",
}
"""Files that explore writes beside its page."""
_LIMITS = {"label_first": (1, None), "clusters": (1, None), "most": (3, MOST), "map_points": (3, None)}
Columns = dict[str, Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class ExploreOptions(BatchOptions, AnalysisOptions):
    """Make a page and lists of the images of DATA, or of EMBEDDINGS that frossl embed wrote, and open them offline.

    Near-duplicates, outliers, clusters, labels to check, images to label first, and a map to select on.
    """

    encoder: tuple[str, ...] = ()
    """one or several, between which the page switches: as for embed, or untrained, which is like the first"""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """folder of the page and its lists (explore/NAME of the data if not given)"""
    map_points: int = 50_000
    """most points of the map, spread evenly over the images"""
    most: int = MOST
    """most images that are compared with each other, spread evenly; 200,000 at most"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, (least, most) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= (most or value):
                allowed = f"at least {least}" + (f" and at most {most:,}" if most else "")
                raise UserError(f"--{name.replace('_', '-')} must be {allowed}, got {value}")


@dataclass(frozen=True, eq=False)
class Exploration:
    """What :func:`explore` found: the ``page``, and of each encoder its ``lists``, columns by name of the file."""

    page: Path
    lists: dict[str, dict[str, Columns]] = field(repr=False)
    findings: dict[str, Findings] = field(repr=False)

    def frame(self, name: str, encoder: str | None = None) -> Any:
        """The list ``name``, such as ``outliers``, of an encoder, the first if not given, as a data frame of pandas.

        Raises:
            UserError: pandas is not installed.
        """
        return data_frame(self.lists[encoder or next(iter(self.lists))][f"{name}.csv"])

    def _repr_html_(self) -> str:
        """The page in a frame, for notebooks."""
        text = escape(self.page.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{text}" style="width: 100%; height: 48rem; border: 0"></iframe>'


def explore(
    data: str, *, encoder: str | Sequence[str] = (), console: Console | None = None, **options: Any
) -> Exploration:
    """Writes the page and lists of ``data``, images or a file of embeddings.

    ``options`` are the other fields of :class:`ExploreOptions`.

    Raises:
        UserError: no such images or encoder.
    """
    encoder = (encoder,) if isinstance(encoder, str) else tuple(encoder)
    return explore_as(ExploreOptions(data=data, encoder=encoder, **options), console or Console(quiet=True))


def explore_as(given: ExploreOptions, console: Console) -> Exploration:
    """As :func:`explore`."""
    source = (source_name(given.data) or "data").removesuffix(".parquet").removesuffix(".npz")
    out = Path(given.out or Path("explore") / source)
    out.mkdir(parents=True, exist_ok=True)
    images, embedded = _embeddings(given, out, console)
    first = next(iter(embedded.values()))
    kept = evenly_spaced(len(first), given.most)
    notes = []
    if broken := len(first.unreadable):
        notes.append(f"{broken:,} image{'s' * (broken > 1)} could not be read, left out")
    if len(kept) < len(first):
        notes.append(f"{len(kept):,} of {len(first):,} images were compared, spread evenly")
    part = None if images is None else images.select(np.array(first.rows)[kept.numpy()])
    of = _collection(first, kept.tolist(), part, notes, console)
    device = device_of(Config(data=given.data, device=given.device))
    findings, lists = {}, {}
    for name, one in embedded.items():
        with terminal.working(console, "analysing") as log:
            log(f"analysing what {name} sees")
            findings[name] = analyse(
                one.vectors[kept.numpy()].astype(np.float32),
                of.pictures,
                of.classes_N,
                of.classes,
                of.splits,
                given,
                mapped=evenly_spaced(len(kept), given.map_points),
                pixels_of=lambda i: _pixels(part, i),
                device=device,
                log=log,
            )
        lists[name] = _lists(findings[name], of)
        folder = out if len(lists) == 1 else out / name.replace("/", "_")
        folder.mkdir(exist_ok=True)
        for file, columns in lists[name].items():
            write_csv(folder / file, columns)
    for name, one in findings.items():
        if one.suspicion is not None and one.suspicion.doubted > MANY_DOUBTS:
            warning = (
                f"{name} doubts {one.suspicion.doubted:.0%} of the labels: this encoder separates the classes poorly, "
                "and its list of doubtful labels is not to be trusted"
            )
            notes.append(warning)
            terminal.warn(console, f"{warning}; try another --encoder")
    page, titles = out / "explore.html", {name: _title(one.about) for name, one in embedded.items()}
    files = {file: LISTS[file] for file in next(iter(lists.values()))}
    size = write_page(page, of, findings, titles, files)
    text = f"{size['images']:,} images, {size['thumbnails']:,} thumbnails, {size['bytes'] / 1e6:.1f} MB"
    terminal.detail(console)(text)
    return Exploration(page, lists, findings)


def _title(about: About) -> str:
    return f"{about.title}, {about.features} features at {about.size} pixels, SHA-256 {about.checksum[:12]}"


def _embeddings(given: ExploreOptions, out: Path, console: Console) -> tuple[Whole | None, dict[str, Embeddings]]:
    """The images, None if they are gone, and embeddings by name of encoder, made where they are not there yet."""
    if (one := given_embeddings(given, given.encoder)) is not None:
        images = _images_of(one, given, console)
        if images is not None:
            now = relabelled(one, images, replace(one.about, targets=images.data.targets))
            if now is not one:
                terminal.warn(console, f"labels or splits of {one.about.source} changed; the page shows the new ones")
            one = now
        return images, {one.about.encoder: one}
    encoders = list(given.encoder) or [default_encoder(None, console)]
    if encoders[0] == UNTRAINED:
        raise UserError(
            "--encoder untrained is like the encoder before it; give one first, such as --encoder lite0 untrained"
        )
    images, first = open_images_and_encoder(given, encoders[0], console)
    made = {}
    for name, where in zip(arm_names(encoders), encoders, strict=True):
        if where == encoders[0]:
            subject = first
        elif where == UNTRAINED:
            subject = untrained_like(first, given, images)
        else:
            others, subject = open_images_and_encoder(given, where, Console(quiet=True))
            if others.data.range != images.data.range:
                raise UserError(
                    f"{encoders[0]} and {where} were trained on other ranges of intensities; explore by one"
                )
        stem = out / f"embeddings-{name.replace('/', '_').replace(':', '_')}"
        made[name] = embed_once(stem, images, replace(subject, name=name), given, console)
    return images, made


def _images_of(one: Embeddings, given: ExploreOptions, console: Console) -> Whole | None:
    """The images that embeddings are of, None if they are not there any more.

    Raises:
        UserError: they changed.
    """
    about = one.about
    if not is_there(about.source):
        terminal.warn(console, f"{about.source} is not there: the page goes without pictures and near-duplicates")
        return None
    images = open_images(replace(given, data=about.source, **about.options), terminal.detail(console))
    if images.digest(images.names()) != about.images:
        raise UserError(f"the images of {about.source} are not those that were embedded; run frossl embed again")
    return images


def _collection(
    one: Embeddings, index: list[int], images: Whole | None, notes: list[str], console: Console
) -> Collection:
    """The ``images`` of the embeddings at ``index``, with small pictures of them."""
    labels = [one.labels[i] for i in index]
    found = {label for label in labels if label is not None} if one.about.targets == "classes" else set()
    in_order = images.data.classes if images is not None and images.data.classes else sorted(found)
    classes = [name for name in in_order if name in found]
    number: dict[str | None, int] = {name: i for i, name in enumerate(classes)}
    return Collection(
        name=Path(source_name(one.about.source)).name,
        paths=[one.paths[i] for i in index],
        splits=[one.splits[i] for i in index],
        labels=labels,
        classes=tuple(classes),
        classes_N=torch.tensor([number.get(label, -1) for label in labels]),
        pictures=None if images is None else _pictures(images, console),
        notes=notes,
    )


def _pictures(images: Whole, console: Console) -> Tensor:
    """Small pictures ``(N, C, 32, 32)`` of at most three channels."""
    kept: list[Tensor] = []
    with terminal.counting(console, "small pictures", len(images)) as advance:
        for x, reasons in square_batches(Squares(images, SIDE, least=2 * SIDE), 512, 0):
            kept.append(x[:, :3])
            advance(len(reasons))
    return torch.cat(kept)


def _pixels(images: Whole | None, i: int) -> int:
    """How many values image ``i`` has; 0 if it cannot be read."""
    try:
        return images[i].numel() if images else 0
    except UnreadableError:
        return 0


def _lists(found: Findings, of: Collection) -> dict[str, Columns]:
    """The columns of each list that there is something for, by name of the file."""

    def about(index: Sequence[int]) -> Columns:
        columns = {"path": of.paths, "split": of.splits, "label": of.labels}
        return {name: [column[i] for i in index] for name, column in columns.items()}

    def rounded(x: Tensor) -> list[float]:
        return [round(value, 4) for value in x.tolist()]

    def yes(flags: Sequence[bool]) -> list[str]:
        return ["yes" if flag else "no" for flag in flags]

    lists: dict[str, Columns] = {}
    if of.pictures is not None:
        across = [len({of.splits[i] for i in g.images}) > 1 for g in found.groups]
        rows = [(n, i) for n, group in enumerate(found.groups) for i in group.images]
        lists["duplicates.csv"] = {
            "group": [n + 1 for n, _ in rows],
            **about([i for _, i in rows]),
            "keep": yes([i == found.groups[n].images[0] for n, i in rows]),
            "correlation": [round(found.groups[n].alike, 4) for n, _ in rows],
            "across_splits": yes([across[n] for n, _ in rows]),
        }
    order = found.outliers.argsort(descending=True, stable=True)
    lists["outliers.csv"] = about(order.tolist()) | {"score": rounded(found.outliers[order])}
    order = found.near.argsort(descending=True, stable=True)
    order = order[found.cluster[order].argsort(stable=True)]
    lists["clusters.csv"] = about(order.tolist()) | {
        "cluster": (found.cluster[order] + 1).tolist(),
        "cosine_to_centre": rounded(found.near[order]),
    }
    if (s := found.suspicion) is not None:
        order = s.score.argsort(descending=True, stable=True)
        lists["labels.csv"] = about(found.labelled[order].tolist()) | {
            "believed": [of.classes[c] for c in s.believed[order].tolist()],
            "probability": rounded(s.probability[order]),
            "probability_of_label": rounded(s.given[order]),
            "doubted": yes(s.flagged[order].tolist()),
        }
    first = found.label_first.tolist()
    lists["label-first.csv"] = {"path": [of.paths[i] for i in first], "label": [""] * len(first)}
    return lists
