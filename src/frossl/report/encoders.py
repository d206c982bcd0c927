"""Encoders side by side on the same images: in the terminal and as a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from frossl.core.config import to_plain
from frossl.core.files import write_text
from frossl.evals.guess import GUESSES
from frossl.evals.suite import START, Evaluation
from frossl.evals.verdict import Outcome, clearly_better, deciding, outcome
from frossl.nn.encoder import EncoderSpec
from frossl.report import figures, terminal
from frossl.report.arms import arms_of
from frossl.report.page import render_page
from frossl.report.table import Cell, Table, minus
from frossl.report.tables import accuracy_table
from frossl.report.verdict import glossary
from frossl.runs.directory import first_free


@dataclass(frozen=True)
class SideBySide:
    """Encoders evaluated on ``data``, the spec of each, and the name of the untrained arm of the same architecture."""

    data: str
    evaluation: Evaluation
    specs: dict[str, EncoderSpec]
    untrained: dict[str, str]

    def against_controls(self, name: str) -> Outcome | None:
        """The outcome of one encoder against its untrained arm, raw pixels and the best guess."""
        arms = self.evaluation.arms
        controls = {arm: arms[arm] for arm in ("raw pixels", *GUESSES.values()) if arm in arms}
        own = {"pretrained": arms[name], "untrained": arms[self.untrained[name]], **controls}
        return outcome(replace(self.evaluation, arms=own))

    def order(self) -> list[str]:
        """The encoders, the best by the first score that decides first; as they were given if none does."""
        found = next(iter(deciding(self.evaluation, next(iter(self.specs)))), None)
        values = self.evaluation.arms
        if found is None:
            return list(self.specs)
        return sorted(self.specs, key=lambda name: -values[name].get(found, float("-inf")))

    def sentences(self) -> Iterator[str]:
        """By how many points the first encoder is ahead of each other one."""
        first, *others = self.order()
        arms, images = self.evaluation.arms, self.evaluation.held_out
        for other in others:
            said = []
            for name, column in deciding(self.evaluation, first).items():
                if name in arms[other]:
                    sure = clearly_better(name, column, arms[first], arms[other], images)
                    gain = 100 * (arms[first][name] - arms[other][name])
                    said.append(f"{column.heading} {gain:+.1f} points{'' if sure else ', within noise'}")
            if said:
                yield minus(f"{first} against {other}: {'; '.join(said)}.")


def show_encoders(console: Console, found: SideBySide) -> None:
    """Prints the table, and sentences on it."""
    terminal.show_tables(console, found.evaluation)
    for text in found.sentences():
        console.print(f"[bold]{escape(text)}[/]")
    for name in found.order():
        if against := found.against_controls(name):
            console.print(escape(f"{name}, against the better of those that learned nothing: {minus(against.gains)}."))
    terminal.show_protocols(console, found.evaluation)


def write_encoders(found: SideBySide, place: Path) -> Path:
    """``evaluation.json`` and ``report.html`` in ``place``, or the first free place of that name; the page.

    Raises:
        UserError: it cannot be written.
    """
    place = first_free(place)
    write_text(place / "evaluation.json", json.dumps(to_plain(found), indent=2) + "\n")
    verdicts = [(name, found.against_controls(name)) for name in found.order()]
    arms = arms_of([("", found.evaluation)])
    facts = {name: _facts(spec) for name, spec in found.specs.items()}
    names = list(dict.fromkeys(key for of in facts.values() for key in of))
    rows = [[Cell(name), *(Cell(of.get(key, "")) for key in names)] for name, of in facts.items()]
    accuracies = accuracy_table(found.data, [("", found.evaluation)])
    page = render_page(
        "encoders.html.j2",
        kind="encoders",
        title=f"{len(found.specs)} encoders on {found.data}" if len(found.specs) > 1 else f"An encoder on {found.data}",
        sentences=list(found.sentences()),
        verdicts=[(name, of.mood, minus(of.gains)) for name, of in verdicts if of is not None],
        on=accuracies | {"plot": figures.accuracy_figure(arms, list(found.specs))},
        facts=Table("", ["encoder", *names], rows),
        glossary={k: v for k, v in glossary([found.evaluation]).items() if k.lower() != START},
    )
    write_text(place / "report.html", page)
    return place / "report.html"


def _facts(spec: EncoderSpec) -> dict[str, str]:
    mean, std = (", ".join(f"{x:.3g}" for x in values) for values in (spec.mean, spec.std))
    numbers = {"features": f"{spec.features:,}", "pixels": f"{spec.size}", "channels": f"{spec.channels}"}
    facts = {"net": spec.title, **numbers, "mean": mean, "deviation": std, "interpolation": spec.interpolation}
    return facts | {name: text for name, text in {"from": spec.origin, "licence": spec.licence}.items() if text}
