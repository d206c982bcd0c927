"""Runs to one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from torch import nn

from frossl.core.files import write_text
from frossl.data import Dataset
from frossl.report import figures
from frossl.report.chapter import Chapter, make_chapter
from frossl.report.figures import Figure
from frossl.report.gallery import show_confusion, show_map, show_neighbours, show_twins, show_typical
from frossl.report.look import Look
from frossl.report.tables import accuracy_tables, settings, summary, time_table
from frossl.report.words import glossary
from frossl.runs.record import read_records


def write_report(
    runs: Sequence[Path],
    output: Path,
    *,
    data: Dataset | None = None,
    backbone: nn.Module | None = None,
    log: Callable[[str], None] = lambda message: None,
) -> Path:
    """Writes the report of one or several ``runs`` to ``output``.

    ``data`` and the untrained ``backbone`` of a module of one's own are those of the runs, where the caller has them.
    Where images or encoder of a run cannot be had any more, the report says why and goes without what needs them.

    Raises:
        UserError: not a run directory, or the file cannot be written.
    """
    opened: dict[str, Dataset] = {}
    chapters = []
    for record in read_records(runs):
        log(f"looking at {record.name}")
        chapters.append(make_chapter(record, data, backbone, opened))
    log("writing the report")
    write_text(output, render(chapters))
    return output


def show(path: Path) -> bool:
    """Opens the report in a browser, if this is a terminal with a display; says whether it did."""
    display = sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    return sys.stdout.isatty() and display and webbrowser.open(path.resolve().as_uri())


class Charts:
    """Collects charts, each with a place on the page."""

    def __init__(self) -> None:
        self.all: dict[str, Figure] = {}

    def add(self, figure: Figure) -> str:
        """Keeps ``figure`` and gives the identifier of its place."""
        name = f"figure-{len(self.all) + 1}"
        self.all[name] = figure
        return name


class Sheets:
    """Sheets of pictures, each kept once however many maps show it."""

    def __init__(self) -> None:
        self.all: dict[str, str] = {}

    def add(self, source: str) -> str:
        """Keeps the data URI and gives the name of its class."""
        return self.all.setdefault(source, f"sheet-{len(self.all) + 1}")


def render(chapters: Sequence[Chapter]) -> str:
    """The whole page."""
    records = [c.record for c in chapters]
    single = chapters[0] if len(chapters) == 1 else None
    spectra = [("" if single else c.record.name, arm, shares) for c in chapters for arm, shares in c.spectra.items()]
    return render_page(
        "report.html.j2",
        kind="report",
        views=_shared(chapters, lambda c: c.views),
        twins=_shared(chapters, lambda c: c.seen and show_twins(c.seen)),
        title=", ".join(r.name for r in records),
        chapters=[{"about": c, "summary": summary(c.record), **_pictures(c.seen)} for c in chapters],
        tables=accuracy_tables(records),
        losses=figures.loss_figures(records),
        monitors=figures.monitor_figures(records),
        optimiser=figures.optimiser_figures(records),
        ranks=figures.rank_figure(records, single.untrained_rank if single else None)
        + (figures.state_figures(single.record) if single else []),
        spectra=figures.spectrum_figure(spectra)
        + [f for r in records for f in figures.spectrum_over_time(r, "" if single else r.name)],
        speed=figures.speed_figure(records),
        times=[(r.name, time_table(r)) for r in records],
        settings=settings({r.name: r for r in records}),
        differing=settings({r.name: r for r in records}, differing=True),
        glossary=glossary(e for r in records for e in r.evaluations.values()),
    )


def render_page(template: str, **values: Any) -> str:
    """``template`` with the charts that it places, the look and the code of every page."""
    return (
        _environment()
        .get_template(template)
        .render(
            **values,
            made=f"{datetime.now():%Y-%m-%d %H:%M}",
            charts=Charts(),
            sheets=Sheets(),
            css=_asset("report.css"),
            js=_asset("report.js"),
            plotly=_plotly(),
        )
    )


def _environment() -> Environment:
    loader = PackageLoader("frossl.report")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda x: f"{x:.0%}"
    environment.filters["thousands"] = lambda x: f"{x:,.0f}"
    return environment


def _pictures(seen: Look | None) -> dict[str, Any]:
    """What needs images and encoder; nothing where these cannot be had."""
    shows = {
        "neighbours": show_neighbours,
        "map": show_map,
        "confusion": show_confusion,
        "typical": show_typical,
    }
    return {name: None if seen is None else make(seen) for name, make in shows.items()}


def _shared(chapters: Sequence[Chapter], show: Callable[[Chapter], Any]) -> list[tuple[str, Any]]:
    """What ``show`` makes of the runs, with their names; what is the same for several stands once."""
    groups: list[tuple[list[str], Any]] = []
    for chapter in chapters:
        made = show(chapter)
        names = next((names for names, other in groups if other == made), None)
        if names is not None:
            names.append(chapter.record.name)
        elif made:
            groups.append(([chapter.record.name], made))
    return [(", ".join(names), made) for names, made in groups]


def _asset(name: str) -> Markup:
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))


@cache
def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs  # not before it is needed: not every use of the package is a report

    return Markup(get_plotlyjs().replace("</script", "<\\/script"))
