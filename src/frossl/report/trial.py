"""A run of a comparison, read from its directory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frossl.core.machine import speed_of
from frossl.core.types import UserError
from frossl.runs.record import Record, Row, read_record

AXES = ("epoch", "images", "views", "seconds")
"""What a run has used up, by the names of ``metrics.jsonl``; views are images times views per image."""


@dataclass(frozen=True)
class Trial:
    """A run of a study. ``state`` is done, diverged, or unfinished; ``record`` is None before the run began."""

    name: str
    arm: str
    budget: str
    seed: int
    state: str
    outcome: dict[str, Any]
    record: Record | None

    def spent(self) -> dict[str, float]:
        """What the run used up, by axis."""
        assert self.record is not None
        end = self.record.end
        return {"views": end["images"] * self.record.views, **{k: end[k] for k in AXES if k != "views"}}

    def machines(self) -> set[str]:
        """The machines that the run began and ended on, as far as speed goes."""
        about = self.record.about if self.record else {}
        places = about.get("machine", {}) | about.get("environment", {}), self.outcome.get("machine", {})
        return {speed_of(place) for place in places if place}

    def monitored(self) -> list[Row]:
        """Rows of the monitor with their views; ``seconds`` are those of training, without the monitor's own."""
        if self.record is None:
            return []
        rows, took = [], 0.0
        for row in self.record.monitor:
            took += row.get("look_seconds", 0.0)
            seconds = round(max(0.0, row["seconds"] - took), 3)
            rows.append(row | {"views": row["images"] * self.record.views, "seconds": seconds})
        return rows

    def curve(self, name: str) -> tuple[list[Row], list[float]]:
        """The rows of the monitor that have ``name``, and its values."""
        rows = [row for row in self.monitored() if name in row]
        return rows, [row[name] for row in rows]


def read_trial(path: Path, run: dict[str, Any]) -> Trial:
    """What is there by now of a ``run`` of the plan of the comparison at ``path``.

    Raises:
        UserError: a file of it is damaged or gone.
    """
    place = path / run["name"]
    kept = place / "outcome.json"
    outcome = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    state = "done" if outcome.get("evaluated") else "diverged" if outcome.get("state") == "diverged" else "unfinished"
    record = read_record(place) if (place / "config.json").exists() else None
    if record is None and state == "done":
        raise UserError(f"{place} lost its config.json; remove the directory to run it again")
    return Trial(run["name"], run["arm"], run["budget"], run["seed"], state, outcome, record)
