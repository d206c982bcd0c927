"""Labels for all images of a collection from a few: ``frossl.predict``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console

from frossl.core.near import did_you_mean
from frossl.core.types import UserError
from frossl.curate.probe import calibration_error, predict_labels, probe_space
from frossl.data.tables import LABEL_NAMES, read_table
from frossl.evals.interval import mean_interval
from frossl.report import terminal
from frossl.runs.embeddings import Embeddings, data_frame
from frossl.train.embed import (
    BatchOptions,
    default_encoder,
    embed_once,
    given_embeddings,
    open_images_and_encoder,
    write_csv,
)

_ALIKE = {
    "path": ("path", "paths", "file", "files", "filename", "file_name", "filepath", "file_path", "image", "name"),
    "label": LABEL_NAMES,
}
"""The columns of a table of labels, and what they are often called, in lower case."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions(BatchOptions):
    """Label all images of DATA, or of EMBEDDINGS that frossl embed wrote, from a table of a few labels.

    A linear probe on the embeddings, with probabilities that are calibrated on the labels it did not see.
    """

    labels: Path  # type: ignore[assignment]  # in the place of the switch that other commands have
    """table (.csv, .tsv, .jsonl) with the columns path and label; rows without a label are passed over"""
    encoder: str | None = None
    """as for embed; lite0 if not given and its extra is installed"""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("predictions.csv")
    """file of predictions"""
    least: float = 0.5
    """probability below which an image is left without a label"""
    next: int = 50
    """how many of the least certain images to list, which to label next"""

    def data_options(self) -> dict[str, Any]:
        """As elsewhere, with the labels that the data have."""
        return super().data_options() | {"labels": True}

    @property
    def next_file(self) -> Path:
        """The file beside ``out`` of the images to label next."""
        return self.out.with_name(f"{self.out.stem}-label-next.csv")


@dataclass(frozen=True, eq=False)
class Predictions:
    """``columns`` of the predictions, one row for each image; and the results of cross-validation on the labels.

    ``accuracy`` is of ``labelled`` images, with a 95 % interval by Wilson; ``guess`` is that of the largest class for
    every image. Of ``unlabelled`` images ``kept`` are sure enough to get a label; ``accuracy_kept`` is the accuracy of
    labelled images that are as sure.
    """

    columns: dict[str, list[Any]] = field(repr=False)
    next: list[str] = field(repr=False)
    labelled: int
    accuracy: float
    interval: tuple[float, float]
    guess: float
    unlabelled: int
    kept: int
    accuracy_kept: float | None
    calibration: float
    temperature: float

    @property
    def above_guess(self) -> bool:
        """Whether the accuracy is clearly above ``guess``, which is never below one over the number of classes."""
        return self.interval[0] > self.guess

    def frame(self) -> Any:
        """The predictions as a data frame of pandas. Raises UserError where it is not installed."""
        return data_frame(self.columns)


def predict(
    data: str,
    labels: str | Path,
    *,
    out: str | Path = "predictions.csv",
    console: Console | None = None,
    **options: Any,
) -> Predictions:
    """Labels all of ``data``, images or a file of embeddings, from the table ``labels``.

    ``options`` are the other fields of :class:`PredictOptions`.

    Raises:
        UserError: no such images, encoder or table, too few labels, or paths that are not among the images.
    """
    given = PredictOptions(data=data, labels=Path(labels), out=Path(out), **options)
    return predict_as(given, console or Console(quiet=True))


def predict_as(given: PredictOptions, console: Console) -> Predictions:
    """As :func:`predict`."""
    if not 0 <= given.least <= 1:
        raise UserError(f"--least is a probability from 0 to 1, got {given.least}")
    table = read_labels(given.labels)
    if (one := given_embeddings(given, given.encoder)) is None:
        images, subject = open_images_and_encoder(given, default_encoder(given.encoder, console), console)
        one = embed_once(given.out.with_name(f"{given.out.stem}-embeddings"), images, subject, given, console)
    labels = _labelled(given.labels, table, one, console)
    names = sorted({*labels.values()})
    y = torch.tensor([names.index(label) for label in labels.values()])
    x = probe_space(torch.from_numpy(one.vectors).float())
    found = predict_labels(x, torch.tensor([*labels]), y, len(names), given.seed)
    sure, best = found.probabilities.max(1)
    likeliest = [names[c] for c in best.tolist()]
    columns = {
        "path": one.paths,
        "label": [name if p >= given.least else "" for p, name in zip(sure.tolist(), likeliest, strict=True)],
        "probability": [round(p, 4) for p in sure.tolist()],
        "likeliest": likeliest,
        "given": [labels.get(i, "") for i in range(len(one))],
    }
    unlabelled = [i for i in sure.argsort(stable=True).tolist() if i not in labels]
    ahead = [one.paths[i] for i in unlabelled[: given.next]]
    write_csv(given.out, columns)
    write_csv(given.next_file, {"path": ahead, "label": [""] * len(ahead)})
    kept = found.sure >= given.least
    return Predictions(
        columns=columns,
        next=ahead,
        labelled=len(labels),
        accuracy=found.right.double().mean().item(),
        interval=mean_interval(found.right),
        guess=max(Counter(labels.values()).values()) / len(labels),
        unlabelled=len(unlabelled),
        kept=sum(bool(columns["label"][i]) for i in unlabelled),
        accuracy_kept=found.right[kept].double().mean().item() if bool(kept.any()) else None,
        calibration=calibration_error(found.sure, found.right),
        temperature=found.temperature,
    )


def read_labels(table: Path) -> list[tuple[str, str]]:
    """Path and label of each row of the table that has both.

    Raises:
        UserError: there is no such table, or it has no such columns.
    """
    if not table.is_file():
        raise UserError(f"--labels: there is no table {table}.{did_you_mean(table)}")
    columns = read_table(table)
    if missing := [name for name in _ALIKE if name not in columns]:
        order = [*columns][::-1]  # so that the first that fits stays
        meant = {name: near for name in missing for near in order if near.strip().lower() in _ALIKE[name]}
        rename = " and ".join(f"{near!r} to {name!r}" for name, near in meant.items())
        raise UserError(
            f"--labels: {table} needs the columns path and label; it has {', '.join(columns) or 'none'}."
            + f" Rename {rename}" * bool(meant)
        )
    rows = zip(columns["path"], columns["label"], strict=True)
    words = [(str(path), str(label).strip()) for path, label in rows if path is not None and label is not None]
    return [(path, label) for path, label in words if label]


def _labelled(table: Path, rows: Sequence[tuple[str, str]], one: Embeddings, console: Console) -> dict[int, str]:
    """The labels that ``rows`` of the table give, by number of the image.

    A path in the table is that of an image if they are equal, or if one ends with the other, folder by folder, and no
    second image fits. Images that could not be read are passed over with a warning.

    Raises:
        UserError: paths that are not there or not of one image, or two labels for one.
    """
    known = [PurePosixPath(path).parts for path in (*one.paths, *one.unreadable)]
    by_name: dict[str, list[int]] = {}
    for i, parts in enumerate(known):
        by_name.setdefault(parts[-1], []).append(i)
    found: dict[int, str] = {}
    missing, unreadable = [], []
    for path, label in rows:
        parts = PurePosixPath(path).parts
        alike = by_name.get(parts[-1], []) if parts else []
        fit = [i for i in alike if all(a == b for a, b in zip(parts[::-1], known[i][::-1], strict=False))]
        places = [i for i in fit if known[i] == parts] or fit
        if len(places) != 1:
            missing.append(path)
        elif places[0] >= len(one):
            unreadable.append(path)
        elif found.setdefault(places[0], label) != label:
            raise UserError(f"--labels: {table} gives {path} two labels, {found[places[0]]} and {label}")
    if unreadable:
        terminal.warn(
            console, f"{len(unreadable):,} labelled images could not be read, passed over: {', '.join(unreadable[:5])}"
        )
    if missing:
        raise UserError(
            f"--labels: {len(missing):,} paths of {table} are not those of one image: {', '.join(missing[:5])}. Paths "
            f"are as frossl embed writes them, such as {one.paths[0]}"
        )
    return found
