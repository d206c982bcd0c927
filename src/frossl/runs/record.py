"""Reads the files of a run directory."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from frossl.core.config import from_plain, to_plain
from frossl.core.files import write_text
from frossl.core.types import UserError
from frossl.evals.suite import Evaluation

Row = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """The content of a run directory; ``evaluations`` are by the name of the data, those of the run itself first."""

    name: str
    path: Path
    about: dict[str, Any]
    train: list[Row]
    monitor: list[Row]
    evaluations: dict[str, Evaluation]
    spectra: list[Row] = field(default_factory=list)
    health: list[Row] = field(default_factory=list)

    @property
    def standing(self) -> list[Row]:
        """Findings of the health monitor that were not over at the end, oldest first."""
        rows: dict[str, Row] = {}
        for row in self.health:
            rows.pop(row["state"], None)
            if not row.get("over"):
                rows[row["state"]] = row
        return list(rows.values())

    @property
    def config(self) -> dict[str, Any]:
        return self.about["config"]

    @property
    def views(self) -> int:
        """Views per image."""
        return sum(view["count"] for view in self.about["views"])

    @property
    def evaluation(self) -> Evaluation | None:
        """The evaluation on the run's own data, else the first."""
        return next(iter(self.evaluations.values()), None)

    @property
    def end(self) -> Row:
        """The newest row of the log, which must have one."""
        return max((*self.train, *self.monitor), key=lambda row: (row["step"], row["seconds"]))

    def last(self, name: str) -> float | None:
        """The newest value of ``name`` among the rows of the monitor."""
        return next((row[name] for row in reversed(self.monitor) if name in row), None)


def is_run(path: Path) -> bool:
    """Whether ``path`` is a run directory, and not a folder of timm, which has a ``config.json`` too."""
    try:
        return "frossl" in json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def refuse_no_run(run: Path) -> None:
    """Raises UserError if ``run`` is no run directory; names runs in a comparison, or beside it."""
    if (run / "config.json").exists():
        return
    message, place, where, pattern = "not a run directory: it has no config.json", run.parent, "beside", "*/config.json"
    if (run / "comparison.json").exists():
        message, place, where, pattern = "a comparison of runs", run, "in", "**/config.json"
    known = sorted(str(path.parent.relative_to(place)) for path in place.glob(pattern))[:10]
    raise UserError(f"{run} is {message}." + (f" Runs {where} it: {', '.join(known)}." if known else ""))


def read_config(run: Path) -> dict[str, Any]:
    """The content of ``config.json`` of a run directory.

    Raises:
        UserError: there is none, it is damaged, or another program wrote it.
    """
    refuse_no_run(run)
    path = run / "config.json"
    about = read_json(path)
    if not isinstance(about, dict) or "frossl" not in about:
        raise UserError(f"{path} is not the configuration of a run")
    missing = [name for name in ("config", "views", "encoder", "images", "batch") if name not in about]
    missing = missing or [name for name in ("data", "method", "objective") if name not in about["config"]]
    if missing:
        raise UserError(f"{path} is damaged: {', '.join(missing)} missing")
    return about


def read_record(run: Path) -> Record:
    """Reads ``config.json`` and, where they are there, ``metrics.jsonl`` and ``evaluation.json``.

    Raises:
        UserError: not a run directory, or a file of it is damaged.
    """
    about = read_config(run)
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(run / "metrics.jsonl"):
        rows[row["kind"]].append(row)
    path = run / "evaluation.json"
    saved = read_json(path) if path.exists() else {}
    own = Path(about["config"]["data"]).name
    return Record(
        name=run.resolve().name,
        path=run,
        about=about,
        train=rows["train"],
        monitor=rows["monitor"],
        spectra=[row for row in rows["spectrum"] if "eigenvalues" in row],  # absent for features that are not finite
        health=rows["health"],
        evaluations={k: from_plain(Evaluation, saved[k]) for k in sorted(saved, key=lambda name: name != own)},
    )


def read_records(runs: Sequence[Path]) -> list[Record]:
    """Several runs; those whose directories have the same name are called by their paths."""
    records = [read_record(run) for run in runs]
    names = [r.name for r in records]
    return [replace(r, name=str(r.path)) if names.count(r.name) > 1 else r for r in records]


def read_json(path: Path) -> Any:
    """The content of a JSON file of a run directory; raises UserError if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def read_rows(path: Path) -> list[Row]:
    """Rows of a ``metrics.jsonl``, none if it is not there; a last line cut off by a crash is left out.

    Raises:
        UserError: another line is broken, which no crash does.
    """
    rows = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise UserError(f"{path} is damaged: line {number}: {error.msg}. Take that line out to go on") from None
    return rows


def keep_evaluation(path: Path, name: str, new: Evaluation, own: str) -> None:
    """Merges ``new`` into the file under ``name``, or under more of the path of its data if the name is taken.

    The plain name is reserved for the run's ``own`` data. Earlier values are dropped if the number of held-out images
    or the kind of their labels changed, as the data did then.
    """
    kept = json.loads(path.read_text()) if path.exists() else {}
    parts = Path(new.source).parts
    longer = ["/".join(parts[-k:]).replace("//", "/") for k in range(2, len(parts) + 1)]
    keys = [name, *longer, f"data set {name}"]
    if new.source != own and name == Path(own).name:
        keys = keys[1:]
    key = next(key for key in keys if key not in kept or kept[key]["source"] == new.source)
    merged, old = to_plain(new), kept.get(key)
    if old is not None and (old["held_out"], old.get("targets", new.targets)) == (new.held_out, new.targets):
        merged["arms"] = old["arms"] | {arm: old["arms"].get(arm, {}) | values for arm, values in new.arms.items()}
        for arm, answers in old.get("answers", {}).items():
            merged["answers"][arm] = answers | merged["answers"].get(arm, {})
        merged["protocols"] = old["protocols"] | new.protocols
    kept[key] = merged
    write_text(path, json.dumps(kept, indent=2) + "\n")
