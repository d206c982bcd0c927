"""``frossl explore``: a page and lists of what is in a folder of images."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import Tensor

from frossl.commands.embed import (
    UNTRAINED,
    HowToEncode,
    default_encoder,
    embed_to,
    open_for,
    open_images,
    untrained_like,
)
from frossl.core.files import write_text
from frossl.core.types import UserError
from frossl.curate.duplicates import SIDE
from frossl.curate.findings import ExploreOptions, Findings, analyse
from frossl.curate.neighbours import MOST
from frossl.curate.space import spread
from frossl.data.decode import UnreadableError
from frossl.data.open import is_there, join_sources, source_name
from frossl.data.whole import Squares, Whole, square_batches
from frossl.report import terminal
from frossl.report.explore import Collection, write_page
from frossl.runs.config import Config
from frossl.runs.embeddings import Embeddings, data_frame, has_pyarrow, is_embeddings, read_embeddings, relabelled
from frossl.train.resources import device_of
from frossl.train.side_by_side import arm_names

LISTS = {
    "duplicates.csv": "near-duplicates in groups, the image to keep first",
    "outliers.csv": "all images, those farthest from the others first",
    "clusters.csv": "the cluster of each image, the most typical first",
    "labels.csv": "labelled images, those whose label is doubted most first",
    "label-first.csv": "images to label first, with an empty column for labels: frossl predict takes it",
}
"""What explore writes beside its page."""
PAGE = "explore.html"


@dataclass(frozen=True, kw_only=True)
class Explore(HowToEncode, ExploreOptions):
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

    def check_numbers(self) -> None:
        """Raises UserError for a number that cannot be."""
        limits = {"label_first": (1, None), "clusters": (1, None), "most": (3, MOST), "map_points": (3, None)}
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= (most or value):
                allowed = f"at least {least}" + (f" and at most {most:,}" if most else "")
                raise UserError(f"--{name.replace('_', '-')} must be {allowed}, got {value}")


@dataclass(frozen=True, eq=False)
class Exploration:
    """What :func:`explore` found: the ``page``, and of each encoder its ``lists``, columns by name of the file."""

    page: Path
    lists: dict[str, dict[str, dict[str, list[Any]]]] = field(repr=False)
    findings: dict[str, Findings] = field(repr=False)

    def frame(self, name: str, encoder: str | None = None) -> Any:
        """The list ``name``, such as ``outliers``, of an encoder, the first if not given, as a data frame of pandas.

        Raises:
            UserError: pandas is not installed.
        """
        return data_frame(self.lists[encoder or next(iter(self.lists))][f"{name}.csv"])

    def _repr_html_(self) -> str:
        """The page in a frame, for notebooks."""
        from html import escape

        text = escape(self.page.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{text}" style="width: 100%; height: 48rem; border: 0"></iframe>'


def run(args: list[str], console: Console) -> int:
    given = tyro.cli(Explore, prog="frossl explore", args=join_sources(args))
    found = explore_as(given, console)
    terminal.wrote(console, "Page", found.page)
    for file in next(iter(found.lists.values())):
        terminal.wrote(console, "List", found.page.with_name(file))
    return 0


def explore(
    data: str, *, encoder: str | Sequence[str] = (), console: Console | None = None, **options: Any
) -> Exploration:
    """Writes the page and lists of ``data``, images or a file of embeddings; ``options`` are those of the command.

    Raises:
        UserError: no such images or encoder.
    """
    encoder = (encoder,) if isinstance(encoder, str) else tuple(encoder)
    if options.get("out") is not None:
        options["out"] = Path(options["out"])
    return explore_as(Explore(data=data, encoder=encoder, **options), console or Console(quiet=True))


def explore_as(given: Explore, console: Console) -> Exploration:
    """As :func:`explore`."""
    given.check_numbers()
    log = terminal.detail(console)
    out = given.out or Path("explore") / (source_name(given.data) or "data").removesuffix(".parquet").removesuffix(
        ".npz"
    )
    out.mkdir(parents=True, exist_ok=True)
    images, embedded = _embedded(given, out, console)
    first = next(iter(embedded.values()))
    kept = spread(len(first), given.most)
    broken = len(first.unreadable)
    notes = [f"{broken:,} image{'s' * (broken > 1)} could not be read, left out"] if broken else []
    if len(kept) < len(first):
        notes.append(f"{len(kept):,} of {len(first):,} images were compared, spread evenly")
    part = None if images is None else images.select(np.array(first.rows)[kept.numpy()])
    of = _collection(first, kept, part, tuple(notes), console)
    device = device_of(Config(data=given.data, device=given.device))
    findings, lists = {}, {}
    for name, one in embedded.items():
        with terminal.working(console, f"looking at what {name} sees") as tell:
            say: Callable[[str], None] = lambda what, name=name, tell=tell: tell(f"{name}: {what}")  # noqa: E731
            how: dict[str, Any] = {"mapped": spread(len(kept), given.map_points), "tell": say}
            how |= {"pixels_of": lambda i: _pixels(part, i), "device": device}
            vectors = one.vectors[kept.numpy()].astype(np.float32)
            findings[name] = analyse(vectors, of.pictures, of.classes_N, of.classes, of.splits, given, **how)
        lists[name] = _lists(findings[name], of)
        where = out if len(lists) == 1 else out / name.replace("/", "_")
        where.mkdir(exist_ok=True)
        for file, columns in lists[name].items():
            write_text(where / file, as_csv(columns))
    said = {name: _title(one) for name, one in embedded.items()}
    about = write_page(out / PAGE, of, findings, said, {file: LISTS[file] for file in next(iter(lists.values()))})
    log(f"{about['images']:,} images, {about['thumbnails']:,} thumbnails, {about['bytes'] / 1e6:.1f} MB")
    return Exploration(out / PAGE, lists, findings)


def _title(one: Embeddings) -> str:
    about = one.about
    return f"{about.title}, {about.features} features at {about.size} pixels, SHA-256 {about.checksum[:12]}"


def _embedded(given: Explore, out: Path, console: Console) -> tuple[Whole | None, dict[str, Embeddings]]:
    """The images, None if they are gone, and embeddings by name of encoder, made where they are not there yet."""
    if is_embeddings(given.data):
        if given.encoder:
            raise UserError("--encoder: these embeddings have their encoder; give DATA to explore by others")
        one = read_embeddings(Path(given.data))
        images = _images_of(one, given, console)
        if images is not None:
            now = relabelled(one, images, replace(one.about, targets=images.data.targets))
            if now is not one:
                terminal.warn(console, f"labels or splits of {one.about.source} changed; shown are those of now")
            one = now
        return images, {one.about.encoder: one}
    log = terminal.detail(console)
    encoders = list(given.encoder) or [default_encoder(None, log)]
    if encoders[0] == UNTRAINED:
        raise UserError(
            "--encoder untrained is like the encoder before it; give one first, such as --encoder lite0 untrained"
        )
    made: dict[str, Embeddings] = {}
    images, first = open_for(given, encoders[0], console)
    for name, where in zip(arm_names(encoders), encoders, strict=True):
        if where == encoders[0]:
            subject = first
        elif where == UNTRAINED:
            subject = untrained_like(first, given, images)
        else:
            others, subject = open_for(given, where, Console(quiet=True))
            if others.data.range != images.data.range:
                raise UserError(
                    f"{encoders[0]} and {where} were trained on other ranges of intensities; explore by one"
                )
        file = out / f"embeddings-{name.replace('/', '_').replace(':', '_')}.{'parquet' if has_pyarrow() else 'npz'}"
        embed_to(file, images, replace(subject, name=name), given, keep=True, console=console)
        made[name] = read_embeddings(file)
    return images, made


def _images_of(one: Embeddings, given: Explore, console: Console) -> Whole | None:
    """The images that embeddings are of, where they are still there and the same."""
    about = one.about
    if not is_there(about.source):
        terminal.warn(console, f"{about.source} is not there: the page goes without pictures and near-duplicates")
        return None
    options = about.options | {"data_dir": Path(about.options["data_dir"])}
    images = open_images(replace(given, data=about.source, **options), terminal.detail(console))
    if images.digest() != about.images:
        raise UserError(f"the images of {about.source} are not those that were embedded; run frossl embed again")
    return images


def _collection(
    one: Embeddings, kept: Tensor, images: Whole | None, notes: tuple[str, ...], console: Console
) -> Collection:
    """The images at ``kept``, with small pictures of them."""
    chosen = kept.tolist()
    paths, splits, labels = ([column[i] for i in chosen] for column in (one.paths, one.splits, one.labels))
    words = sorted({label for label in labels if label is not None}) if one.about.targets == "classes" else []
    if images is not None and images.data.classes:
        words = [name for name in images.data.classes if name in {*words}]
    number = {word: i for i, word in enumerate(words)}
    classes_N = torch.tensor([number.get(label, -1) if label is not None else -1 for label in labels])
    pictures = None if images is None else _pictures(images, console)
    return Collection(
        Path(source_name(one.about.source)).name, paths, splits, labels, tuple(words), classes_N, pictures, notes
    )


def _pictures(part: Whole, console: Console) -> Tensor:
    """Small pictures ``(N, C, 32, 32)`` of at most three channels."""
    kept: list[Tensor] = []
    with terminal.counting(console, "small pictures", len(part)) as tell:
        for x, reasons in square_batches(Squares(part, SIDE, least=2 * SIDE), 512, 0):
            kept.append(x if x.shape[1] <= 3 else x[:, :3])
            tell(len(reasons))
    return torch.cat(kept)


def _pixels(part: Whole | None, i: int) -> int:
    """How many numbers the image ``i`` has, 0 if it is not there any more."""
    try:
        return 0 if part is None else part[i].numel()
    except UnreadableError:
        return 0


def _lists(found: Findings, of: Collection) -> dict[str, dict[str, list[Any]]]:
    """The columns of each list; those that there are none of are left out."""
    lists = {}
    if of.pictures is not None:
        rows = [(n, i, k == 0, g) for n, g in enumerate(found.groups, 1) for k, i in enumerate(g.images)]
        across = {id(g): len({of.splits[i] for i in g.images}) > 1 for g in found.groups}
        lists["duplicates.csv"] = {
            "group": [n for n, *_ in rows],
            **_about([i for _, i, *_ in rows], of),
            "keep": ["yes" if keep else "no" for *_, keep, _ in rows],
            "correlation": [round(g.alike, 4) for *_, g in rows],
            "across_splits": ["yes" if across[id(g)] else "no" for *_, g in rows],
        }
    order = found.outliers.argsort(descending=True, stable=True)
    lists["outliers.csv"] = _about(order.tolist(), of) | {"score": _rounded(found.outliers[order])}
    order = found.near.argsort(descending=True, stable=True)
    order = order[found.cluster[order].argsort(stable=True)]
    more = {"cluster": (found.cluster[order] + 1).tolist(), "cosine_to_centre": _rounded(found.near[order])}
    lists["clusters.csv"] = _about(order.tolist(), of) | more
    if (s := found.suspicion) is not None:
        order = s.score.argsort(descending=True, stable=True)
        lists["labels.csv"] = _about(found.labelled[order].tolist(), of) | {
            "believed": [of.classes[c] for c in s.believed[order].tolist()],
            "probability": _rounded(s.probability[order]),
            "probability_of_label": _rounded(s.given[order]),
            "doubted": ["yes" if flag else "no" for flag in s.flagged[order].tolist()],
        }
    lists["label-first.csv"] = {"path": [of.paths[i] for i in found.label_first.tolist()]}
    lists["label-first.csv"]["label"] = [""] * len(found.label_first)
    return lists


def _about(index: Sequence[int], of: Collection) -> dict[str, list[Any]]:
    return {
        "path": [of.paths[i] for i in index],
        "split": [of.splits[i] for i in index],
        "label": [of.labels[i] for i in index],
    }


def _rounded(x: Tensor) -> list[float]:
    return [round(value, 4) for value in x.tolist()]


def as_csv(columns: dict[str, list[Any]]) -> str:
    """Columns as comma-separated values."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return file.getvalue()
