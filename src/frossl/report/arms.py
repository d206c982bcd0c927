"""The arms of evaluations, as tables for the terminal and the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from frossl.evals import columns
from frossl.evals.guess import GUESSES
from frossl.evals.linear import DRAWS
from frossl.evals.robustness import OPERATIONS
from frossl.evals.suite import Evaluation
from frossl.report.table import Cell, Table, number


@dataclass(frozen=True)
class Arm:
    """The values of one set of features. ``run`` is the run they are of, or "every run", or empty if there is one."""

    run: str
    name: str
    values: dict[str, float]
    held_out: int

    @property
    def label(self) -> str:
        """The arm in a table or a legend."""
        return f"{self.run} · {self.name}" if self.run else self.name

    def interval(self, name: str) -> float | None:
        """Half the width of the measured 95 % interval, if there is one."""
        low, high = (self.values.get(f"{name}_{end}") for end in ("low", "high"))
        return None if low is None or high is None else (high - low) / 2

    def margin(self, name: str) -> float | None:
        """:meth:`interval`; for an accuracy without one, that of a share of the held-out images and of the draws.

        None for a guess, and for other scores without a measured interval.
        """
        measured = self.interval(name)
        if measured is not None or self.name in GUESSES.values() or columns()[name].score != "accuracy":
            return measured
        share = min(max(self.values[name], 0.01), 0.99)
        variance = share * (1 - share) / max(self.held_out, 1) + self.values.get(f"{name}_std", 0.0) ** 2 / DRAWS
        return 1.96 * math.sqrt(variance)


def arms_of(evaluations: Sequence[tuple[str, Evaluation]]) -> list[Arm]:
    """The arms of all runs; a control with the same values in every run appears once, at the end."""
    shown = [e.shown() for _, e in evaluations]
    arms = [
        Arm(run, name, values, e.held_out)
        for (run, e), of in zip(evaluations, shown, strict=True)
        for name, values in of.items()
    ]
    if len(evaluations) == 1:
        return [replace(arm, run="") for arm in arms]
    same = [a for a in arms if a.name != "pretrained" and all(of.get(a.name) == a.values for of in shown)]
    once = {a.name: replace(a, run="every run") for a in same}
    return [a for a in arms if a.name not in once] + list(once.values())


def evaluation_table(arms: Sequence[Arm], *, brief: bool = False) -> Table:
    """A row for each arm and a column for each value that any of them has; the best scores are bold.

    A ``brief`` table, for the terminal, has short headings and ± for scores only.
    """
    shown = {name: column for name, column in columns().items() if any(name in arm.values for arm in arms)}
    best = {n: max(a.values[n] for a in arms if n in a.values) for n, column in shown.items() if column.score}
    rows = []
    for arm in arms:
        row = [Cell(arm.label, best=arm.name == "pretrained")]
        for name, column in shown.items():
            value, margin = arm.values.get(name), None if brief else arm.interval(name)
            if value is not None and column.score:
                margin = arm.margin(name)
            row.append(number(value, column.digits, margin, value is not None and value == best.get(name)))
        rows.append(row)
    return Table("", ["features", *(c.heading if brief else c.title for c in shown.values())], rows)


def augmentation_tables(arms: Sequence[Arm]) -> list[Table]:
    """kNN and cosine similarity under each augmentation, with a column for each arm; empty if not measured."""
    made = []
    for kind, title in (("knn", "kNN"), ("cosine", "Cosine similarity")):
        have = [arm for arm in arms if any(name.startswith(f"{kind}_under_") for name in arm.values)]
        rows = []
        for operation, (name_in_words, _) in OPERATIONS.items():
            name = f"{kind}_under_{operation}"
            if any(name in arm.values for arm in have):
                rows.append([Cell(name_in_words), *(number(a.values.get(name), margin=a.interval(name)) for a in have)])
        if rows:
            made.append(Table(f"{title} under single augmentations", ["operation", *(a.label for a in have)], rows))
    return made
