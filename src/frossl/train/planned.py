"""Runs of a comparison, and their plan in ``comparison.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from frossl import __version__
from frossl.core.config import to_plain
from frossl.core.files import write_text
from frossl.core.machine import machine
from frossl.core.types import UserError
from frossl.runs.config import FREE_TO_CHANGE, Config

OVER = ("done", "diverged")
"""Final states of a run."""
TRIALS = "trials"
"""Directory, in that of a comparison, of the short runs that choose learning rates."""

Names = dict[str, tuple[str, str, int]]
"""Arm, budget and seed of each run, by name."""


@dataclass(frozen=True)
class Run:
    """One pretraining of the plan: an arm, a budget and a seed.

    With ``validation`` it is measured on a part of the training images, to choose options. A ``trial`` is short: it is
    measured with few training images and has no report.
    """

    name: str
    arm: str
    budget: str
    seed: int
    config: Config
    validation: bool = False
    trial: bool = False

    @classmethod
    def plan(cls, title: str, arm: str, budget: str, config: Config, out: Path, taken: Names, **kinds: bool) -> Run:
        """The run of ``config`` for ``budget`` in a directory of ``out`` that is named after ``title``.

        Adds the name to ``taken``; if another run has it, a hash of ``title`` is appended. ``kinds`` are ``validation``
        and ``trial`` of :class:`Run`.
        """
        name = re.sub(r"[^\w.]+", "-", title).strip("-")
        own = (arm, budget, config.seed)
        if taken.setdefault(name, own) != own:
            name += f"-{sha256(title.encode()).hexdigest()[:8]}"
        return cls(name, arm, budget, config.seed, replace(config, length=budget, out=out, name=name), **kinds)

    @property
    def path(self) -> Path:
        return self.config.out / self.name

    def log(self, suffix: str) -> Path:
        """The path ``logs/NAME`` with ``suffix``; makes its directory."""
        logs = self.config.out / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        return logs / f"{self.name}{suffix}"

    def outcome(self) -> dict[str, Any]:
        """``outcome.json``, whose ``state`` is trained or diverged; empty if the run is not over."""
        path = self.path / "outcome.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def keep(self, outcome: dict[str, Any]) -> None:
        """Writes :meth:`outcome`."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / "outcome.json", json.dumps(outcome, indent=2) + "\n")

    def state(self, protocols: Sequence[str]) -> str:
        """done, diverged, started or to do."""
        outcome = self.outcome()
        if outcome.get("state") == "diverged":
            return "diverged"
        if set(protocols) <= set(outcome.get("evaluated", ())):
            return "done"
        return "started" if self.path.exists() else "to do"


def read_plan(out: Path) -> dict[str, Any]:
    """The content of ``comparison.json`` in ``out``; no runs if it does not exist."""
    path = out / "comparison.json"
    return json.loads(path.read_text()) if path.exists() else {"runs": []}


def names_in(out: Path) -> Names:
    """The names of the runs planned in ``out``."""
    return {run["name"]: (run["arm"], run["budget"], run["seed"]) for run in read_plan(out)["runs"]}


def check_plan(runs: Sequence[Run], tuned: Collection[str] = ()) -> None:
    """Checks that ``runs`` can be added to their directory; the rates of the arms ``tuned`` are not chosen yet.

    Raises:
        UserError: a run of the same name has other settings, only some runs of an arm would have a tuned learning rate,
            or the directory holds something else.
    """
    out, before = runs[0].config.out, read_plan(runs[0].config.out)
    known = {"logs", TRIALS, *(run.name for run in runs)}
    if not before["runs"] and out.exists() and not {p.name for p in out.iterdir()} <= known:
        raise UserError(f"{out} has something else in it; choose another directory with --out")
    planned, chosen = {run["name"]: run for run in before["runs"]}, before.get("tuning", {}).get("chosen", {})
    own = {run["arm"] for run in before["runs"]} - set(chosen)
    for run in runs:
        free = {*FREE_TO_CHANGE, "out", *(["lr"] if run.arm in tuned else [])}
        new = to_plain(run)
        both = planned.get(run.name, new), new
        old, new = ({"validation": r.get("validation", False)} | r["config"] for r in both)
        changed = [f"{k} was {old.get(k)}, would be {v}" for k, v in new.items() if k not in free and old.get(k) != v]
        if changed:
            raise UserError(
                f"{run.name} of {out} was planned with other settings: {'; '.join(changed)}. Leave that as it was, or "
                "start another comparison with --out"
            )
        if run.arm in own if run.arm in tuned else run.config.lr != chosen.get(run.arm, run.config.lr):
            was = "its own learning rate" if run.arm in own else f"the rate {chosen[run.arm]:g} by --tune-lr"
            raise UserError(
                f"{run.arm} of {out} was planned with {was}, and all its runs are to have the same. Leave --tune-lr as "
                "it was, or start another comparison with --out"
            )


def keep_plan(runs: Sequence[Run], about: dict[str, Any]) -> None:
    """Adds ``runs`` to ``comparison.json``.

    ``about`` are further entries: the command, the target and the monitor's metric for it.

    Raises:
        UserError: see :func:`check_plan`.
    """
    check_plan(runs)
    out = runs[0].config.out
    before = read_plan(out)
    planned = {run["name"]: run for run in before["runs"]}
    for run in runs:
        planned.setdefault(run.name, to_plain(run))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the directory {out}: {error.strerror}. Choose another with --out") from None
    about = {"frossl": __version__, "machine": machine(), **about}
    write_text(out / "comparison.json", json.dumps(before | about | {"runs": list(planned.values())}, indent=2) + "\n")
