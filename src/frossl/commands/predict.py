"""``frossl predict``: labels for a whole folder from a few."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console

from frossl.commands.embed import HowToEncode, default_encoder, embed_to, open_for
from frossl.commands.explore import as_csv
from frossl.core.files import write_text
from frossl.core.types import UserError
from frossl.curate.probe import calibration_error, predict_labels, probe_space
from frossl.data.open import join_sources
from frossl.data.tables import read_table
from frossl.evals.interval import mean_interval
from frossl.report import terminal
from frossl.runs.embeddings import Embeddings, data_frame, has_pyarrow, is_embeddings, read_embeddings


@dataclass(frozen=True, kw_only=True)
class Predict(HowToEncode):
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


@dataclass(frozen=True, eq=False)
class Predictions:
    """``columns`` of the predictions, one row for each image; and what cross-validation on the labels says.

    ``accuracy`` is of ``labelled`` images, with a 95 % interval by Wilson; ``kept`` is the share of images that are
    sure enough to get a label, and ``accuracy_kept`` that of labelled images that are.
    """

    columns: dict[str, list[Any]] = field(repr=False)
    next: list[str] = field(repr=False)
    labelled: int
    accuracy: float
    interval: tuple[float, float]
    kept: float
    accuracy_kept: float | None
    calibration: float
    temperature: float

    def frame(self) -> Any:
        """The predictions as a data frame of pandas. Raises UserError where it is not installed."""
        return data_frame(self.columns)


def run(args: list[str], console: Console) -> int:
    given = tyro.cli(Predict, prog="frossl predict", args=join_sources(args))
    found = predict_as(given, console)
    show(console, found, given.least)
    terminal.wrote(console, "Predictions", given.out)
    terminal.wrote(console, "To label next", next_file(given.out))
    return 0


def next_file(out: Path) -> Path:
    """The file beside ``out`` of the images to label next."""
    return out.with_name(f"{out.stem}-label-next.csv")


def predict(data: str, labels: str | Path, *, console: Console | None = None, **options: Any) -> Predictions:
    """Labels all of ``data``, images or a file of embeddings, from the table ``labels``; ``options`` as the command's.

    Raises:
        UserError: no such images, encoder or table, too few labels, or paths that are not among the images.
    """
    out = Path(options.pop("out", "predictions.csv"))
    return predict_as(Predict(data=data, labels=Path(labels), out=out, **options), console or Console(quiet=True))


def predict_as(given: Predict, console: Console) -> Predictions:
    """As :func:`predict`."""
    if not 0 <= given.least <= 1:
        raise UserError(f"--least is a probability from 0 to 1, got {given.least}")
    one = _embeddings(given, console)
    index, words = _labelled(given.labels, one, console)
    names = sorted({*words})
    y = torch.tensor([names.index(word) for word in words])
    labelled = torch.tensor(index)
    said = predict_labels(probe_space(torch.from_numpy(one.vectors).float()), labelled, y, len(names), given.seed)
    sure, best = said.probabilities.max(1)
    told = dict(zip(index, words, strict=True))
    columns = {
        "path": one.paths,
        "label": [names[c] if p >= given.least else "" for p, c in zip(sure.tolist(), best.tolist(), strict=True)],
        "probability": [round(p, 4) for p in sure.tolist()],
        "likeliest": [names[c] for c in best.tolist()],
        "given": [told.get(i, "") for i in range(len(one))],
    }
    free = torch.tensor([i not in told for i in range(len(one))])
    order = sure.masked_fill(~free, 2.0).argsort(stable=True)[: min(given.next, int(free.sum()))].tolist()
    write_text(given.out, as_csv(columns))
    write_text(next_file(given.out), as_csv({"path": [one.paths[i] for i in order], "label": [""] * len(order)}))
    kept = said.sure >= given.least
    return Predictions(
        columns=columns,
        next=[one.paths[i] for i in order],
        labelled=len(index),
        accuracy=said.right.double().mean().item(),
        interval=mean_interval(said.right),
        kept=(sure >= given.least).double().mean().item(),
        accuracy_kept=said.right[kept].double().mean().item() if bool(kept.any()) else None,
        calibration=calibration_error(said.sure, said.right),
        temperature=said.temperature,
    )


def show(console: Console, found: Predictions, least: float) -> None:
    """What cross-validation says, in sentences."""
    low, high = found.interval
    terminal.say(
        console,
        f"accuracy by cross-validation on {found.labelled:,} labels: {found.accuracy:.1%} "
        f"(95 % interval {low:.1%} to {high:.1%})",
        "Probe",
    )
    of_kept = (
        "" if found.accuracy_kept is None else f"; of the labels that are as sure {found.accuracy_kept:.1%} are right"
    )
    terminal.say(console, f"{found.kept:.1%} of the images are sure to {least:g} or more and get a label{of_kept}")
    terminal.say(console, f"calibration error {found.calibration:.3f}, temperature {found.temperature:.2f}")


def _embeddings(given: Predict, console: Console) -> Embeddings:
    """Those given, or those made of the images, in a file beside the predictions that later calls use."""
    if is_embeddings(given.data):
        if given.encoder is not None:
            raise UserError("--encoder: these embeddings have their encoder; give DATA to predict by another")
        return read_embeddings(Path(given.data))
    images, subject = open_for(given, default_encoder(given.encoder, terminal.detail(console)), console)
    file = given.out.with_name(f"{given.out.stem}-embeddings.{'parquet' if has_pyarrow() else 'npz'}")
    embed_to(file, images, subject, given, keep=True, console=console)
    return read_embeddings(file)


def _labelled(table: Path, one: Embeddings, console: Console) -> tuple[list[int], list[str]]:
    """Numbers of the images that the table labels, and their labels.

    A path is that of ``embeddings``, or one of them ends with the other, folder by folder, and fits no second image.
    Images that could not be read are passed over with a warning.

    Raises:
        UserError: no such columns, paths that are not there or not of one image, or two labels for one.
    """
    if not table.is_file():
        raise UserError(f"--labels: there is no table {table}")
    columns = read_table(table)
    if not {"path", "label"} <= {*columns}:
        raise UserError(f"--labels: {table} needs the columns path and label; it has {', '.join(columns) or 'none'}")
    known = [PurePosixPath(path).parts for path in (*one.paths, *one.unreadable)]
    last: dict[str, list[int]] = {}
    for i, parts in enumerate(known):
        last.setdefault(parts[-1], []).append(i)
    found: dict[int, str] = {}
    missing, unreadable = [], []
    for path, label in zip(columns["path"], columns["label"], strict=True):
        word = "" if label is None else str(label).strip()
        if path is None or not word:
            continue
        parts = PurePosixPath(str(path)).parts
        alike = last.get(parts[-1], []) if parts else []
        fit = [i for i in alike if all(a == b for a, b in zip(parts[::-1], known[i][::-1], strict=False))]
        places = [i for i in fit if known[i] == parts] or fit
        if len(places) != 1:
            missing.append(str(path))
        elif places[0] >= len(one):
            unreadable.append(str(path))
        elif found.setdefault(places[0], word) != word:
            raise UserError(f"--labels: {table} gives {path} two labels, {found[places[0]]} and {word}")
    if unreadable:
        terminal.warn(
            console, f"{len(unreadable):,} labelled images could not be read, passed over: {', '.join(unreadable[:5])}"
        )
    if missing:
        raise UserError(
            f"--labels: {len(missing):,} paths of {table} are not those of one image: {', '.join(missing[:5])}. Paths "
            f"are as frossl embed writes them, such as {one.paths[0]}"
        )
    return [*found], [*found.values()]
