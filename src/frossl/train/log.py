"""Where the numbers of a run go: ``metrics.jsonl`` always, TensorBoard beside it.

Rows of ``metrics.jsonl`` are the stable interface: each has ``kind`` (train, monitor), ``step``, ``epoch``,
``images`` and ``seconds``; train rows the loss and its terms, monitor rows figures of the encoder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.tensorboard import TensorBoardLogger


class RunLog:
    """Appends rows; on resume, rows after the step resumed from are dropped first, and TensorBoard leaves them out."""

    def __init__(self, run: Path, resume_step: int = 0) -> None:
        self.path = run / "metrics.jsonl"
        if self.path.exists():
            kept = [row for row in read_rows(self.path) if row["step"] <= resume_step]
            self.path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        self.file = self.path.open("a", buffering=1)
        purge = resume_step + 1 if resume_step else None
        self.board = TensorBoardLogger(root_dir=run, name="", version="tensorboard", purge_step=purge)

    def row(self, kind: str, step: int, where: dict[str, float], values: dict[str, float]) -> None:
        self.file.write(json.dumps({"kind": kind, "step": step, **where, **values}) + "\n")
        self.board.log_metrics({f"{kind}/{name}": value for name, value in values.items()}, step)

    def close(self) -> None:
        self.file.close()
        self.board.finalize("success")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a ``metrics.jsonl``; a last line cut off by a crash is left out."""
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
