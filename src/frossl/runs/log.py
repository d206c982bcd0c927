"""The logs of a run: ``metrics.jsonl`` and TensorBoard always, Weights & Biases with ``--wandb``.

Rows of the files are the stable interface (docs/runs.md): each has ``kind``, ``step``, ``epoch``, ``images`` and
``seconds``. TensorBoard has the numbers of a row as ``kind/name``, or ``kind/where/on/name`` where rows say that.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, TextIO

from torch import Tensor

from frossl.core.distributed import rank
from frossl.core.files import write_text
from frossl.core.types import UserError
from frossl.data.build import MAX_UNREADABLE
from frossl.data.decide import IMAGES
from frossl.data.types import Skipped
from frossl.runs.record import read_config, read_rows

METRICS = "metrics.jsonl"
FILES = {"eigenvalues": "eigenvalues.jsonl"}
"""Kinds of rows that have a file of their own."""


class RunLog:
    """Appends rows; on resume, rows after ``resume_step`` are removed first, and purged from TensorBoard.

    ``history`` are the rows of ``metrics.jsonl`` before that step.
    """

    def __init__(self, run: Path, resume_step: int = 0, wandb: bool = False) -> None:
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        self.run = run
        self.history = _cut(run / METRICS, resume_step)
        for name in FILES.values():
            _cut(run / name, resume_step)
        self.files: dict[str, TextIO] = {}
        purge = resume_step + 1  # also at 0, as a run that ended before its first save begins again
        self.board = TensorBoardLogger(root_dir=run, name="", version="tensorboard", purge_step=purge)
        self.wandb = _start_wandb(run) if wandb else None

    def row(self, kind: str, step: int, where: dict[str, float], values: dict[str, Any]) -> None:
        name = FILES.get(kind, METRICS)
        group = "/".join([kind, *(values[key] for key in ("where", "on") if key in values)])
        numbers = {f"{group}/{key}": v for key, v in values.items() if type(v) in (int, float)}
        with self._saying():
            if name not in self.files:
                self.files[name] = (self.run / name).open("a", buffering=1)
            self.files[name].write(json.dumps({"kind": kind, "step": step, **where, **values}) + "\n")
            self.board.log_metrics(numbers, step)
            if kind == "health":
                self.board.experiment.add_text(kind, " ".join(f"{key}: {v}." for key, v in values.items()), step)
        if self.wandb is not None and numbers:
            self.wandb.log(numbers, step=step)

    def picture(self, name: str, image_CHW: Tensor, step: int) -> None:
        """A uint8 image for TensorBoard and Weights & Biases."""
        with self._saying():
            self.board.experiment.add_image(name, image_CHW, step)
        if self.wandb is not None:
            picture = require_wandb().Image(image_CHW.permute(1, 2, 0).numpy())
            self.wandb.log({name: picture}, step=step)

    def flush(self) -> None:
        """Makes the rows durable."""
        with self._saying():
            for file in self.files.values():
                file.flush()
                os.fsync(file.fileno())

    def close(self) -> None:
        for file in self.files.values():
            with suppress(OSError):  # the error was raised when the row was written
                file.close()
        with suppress(OSError):
            self.board.finalize("success")
        if self.wandb is not None:
            self.wandb.finish()

    @contextmanager
    def _saying(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"could not write {self.run / METRICS}: {error.strerror or error}. The last checkpoint stands; make "
                "room and go on with --resume"
            ) from None


class NoLog:
    """The log of all ranks but the first: writes nothing."""

    history: ClassVar[list[dict[str, Any]]] = []

    def row(self, *_: object) -> None: ...
    def picture(self, *_: object) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


def _cut(path: Path, step: int) -> list[dict[str, Any]]:
    """Drops the rows of ``path`` after ``step``; the others."""
    if not path.exists():
        return []
    kept = [row for row in read_rows(path) if row["step"] <= step]
    write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
    return kept


def require_wandb() -> Any:
    """The package wandb.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("wandb")
    except ImportError:
        raise UserError("--wandb needs another package: pip install 'frossl[wandb]', then wandb login") from None


def _start_wandb(run: Path) -> Any:
    """A run of Weights & Biases that goes on where this one does: its id is kept in the run directory."""
    wandb, path = require_wandb(), run / "wandb-id"
    if not path.exists():
        path.write_text(wandb.util.generate_id())
    about = {"name": run.resolve().name, "dir": str(run), "config": read_config(run)}
    return wandb.init(project="frossl", id=path.read_text(), resume="allow", **about)


UNREADABLE = "unreadable.jsonl"


class Unreadable:
    """Lists each image that could not be read once, also over resumptions. All ranks add the same; the first writes."""

    def __init__(self, run: Path, images: int) -> None:
        self.path, self.images = run / UNREADABLE, images
        self.listed, self.met = {skip.path for skip in read_unreadable(run)}, set[str]()

    def add(self, skipped: Iterable[Skipped], read: int) -> None:
        """Appends new ones to the file; ``read`` images were tried since the run began or was resumed.

        Raises:
            UserError: more than 5 % of them, or of the first 1,000, cannot be read.
        """
        for skip in skipped:
            self.met.add(skip.path)
            if skip.path not in self.listed:
                self.listed.add(skip.path)
                if rank() == 0:
                    with open(self.path, "a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(skip)) + "\n")
            limit = max(1, MAX_UNREADABLE * min(max(read, IMAGES), self.images))
            if len(self.met) > limit:
                raise UserError(
                    f"{len(self.met):,} images cannot be read, more than {MAX_UNREADABLE:.0%} of those met, the last "
                    f"being {skip.path}: {skip.reason}. {self.path} lists them. Mend them and go on with --resume, or "
                    "remove them and start again"
                )


def read_unreadable(run: Path) -> list[Skipped]:
    """The listed images, oldest first."""
    return [Skipped(**row) for row in read_rows(run / UNREADABLE)]
