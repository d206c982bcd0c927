"""Where the numbers of a run go: ``metrics.jsonl`` always, TensorBoard beside it.

Rows of ``metrics.jsonl`` are the stable interface: each has ``kind`` (train, monitor), ``step``, ``epoch``,
``images`` and ``seconds``; train rows the loss and its terms, monitor rows figures of the encoder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from frossl.core.files import write_text
from frossl.core.types import UserError


class RunLog:
    """Appends rows; on resume, rows after the step resumed from are dropped first, and TensorBoard leaves them out."""

    def __init__(self, run: Path, resume_step: int = 0) -> None:
        self.path = run / "metrics.jsonl"
        if self.path.exists():
            kept = [row for row in read_rows(self.path) if row["step"] <= resume_step]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self.file = self.path.open("a", buffering=1)
        purge = resume_step + 1 if resume_step else None
        self.board = TensorBoardLogger(root_dir=run, name="", version="tensorboard", purge_step=purge)

    def row(self, kind: str, step: int, where: dict[str, float], values: dict[str, float]) -> None:
        with self._saying():
            self.file.write(json.dumps({"kind": kind, "step": step, **where, **values}) + "\n")
            self.board.log_metrics({f"{kind}/{name}": value for name, value in values.items()}, step)

    def flush(self) -> None:
        """Makes the rows durable."""
        with self._saying():
            self.file.flush()
            os.fsync(self.file.fileno())

    def close(self) -> None:
        with suppress(OSError):  # what cannot be written now was told when it could not
            self.file.close()
        with suppress(OSError):
            self.board.finalize("success")

    @contextmanager
    def _saying(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"could not write {self.path}: {error.strerror or error}. The last checkpoint stands; make room and go "
                "on with --resume"
            ) from None


class NoLog:
    """What ranks other than the first write: nothing."""

    def row(self, *_: object) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a ``metrics.jsonl``; a last line cut off by a crash is left out."""
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
