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
from frossl.report.run_summary import RunSummary, summarise_run
from frossl.report.tables import accuracy_tables, settings, time_table
from frossl.report.verdict import glossary
from frossl.runs.record import read_records

PICTURES = ("views", "neighbours", "map", "confusion", "typical", "near_duplicates")
"""Sections with pictures, each shown by its runs."""


def write_report(
    runs: Sequence[Path],
    output: Path,
    *,
    data: Dataset | None = None,
    backbone: nn.Module | None = None,
    log: Callable[[str], None] = lambda message: None,
    warn: Callable[[str], None] = lambda message: None,
) -> Path:
    """Writes the report of one or several ``runs`` to ``output``.

    ``data`` and the untrained ``backbone``, if it is the user's own module, are those of the runs. ``log`` gets
    progress, ``warn`` warnings. If the images or the encoder of a run are gone, the report says so and leaves out the
    sections that need them.

    Raises:
        UserError: not a run directory, or the file cannot be written.
    """
    opened: dict[tuple[Any, ...], Dataset] = {}
    summaries = []
    for record in read_records(runs):
        log(f"looking at {record.name}")
        summaries.append(summarise_run(record, data, backbone, opened))
        if warning := summaries[-1].pictures.get("near_duplicates", {}).get("warning"):
            warn(warning)
    log("writing the report")
    write_text(output, render(summaries))
    return output


def show(path: Path) -> bool:
    """Opens the report in a browser, if this is a terminal with a display; says whether it did."""
    display = sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    return sys.stdout.isatty() and display and webbrowser.open(path.resolve().as_uri())


def render(runs: Sequence[RunSummary]) -> str:
    """The whole page."""
    records = [run.record for run in runs]
    ranks = figures.rank_figures(records, runs[0].untrained_rank if len(runs) == 1 else None)
    return render_page(
        "report.html.j2",
        kind="report",
        title=", ".join(r.name for r in records),
        runs=runs,
        tables=accuracy_tables(records),
        training=figures.training_figures(records),
        spectra=figures.spectrum_figures(runs),
        ranks=ranks + (figures.state_figures(records[0]) if len(runs) == 1 else []),
        speed=figures.speed_figures(records),
        times=[(r.name, table) for r in records if (table := time_table(r))],
        settings=settings({r.name: r for r in records}),
        differing=settings({r.name: r for r in records}, differing=True),
        glossary=glossary(e for r in records for e in r.evaluations.values()),
        **{name: _once(runs, name) for name in PICTURES},
    )


def _once(runs: Sequence[RunSummary], name: str) -> list[tuple[str, Any]]:
    """Pictures of the runs under their names; those that several runs share stand once."""
    found = [run.pictures.get(name) for run in runs]
    sharing = [", ".join(r.record.name for r in runs if r.pictures.get(name) == picture) for picture in found]
    return [(sharing[i], picture) for i, picture in enumerate(found) if picture and picture not in found[:i]]


def render_page(template: str, **values: Any) -> str:
    """An HTML page; macros of the template fill in the charts, sheets of pictures and contents of the page."""
    made = f"{datetime.now():%Y-%m-%d %H:%M}"
    return render_template(template, **values, made=made, charts={}, sheets={}, contents=[], plotly=_plotly)


def render_template(template: str, **values: Any) -> str:
    """A template of this room with ``values``, which are escaped in HTML."""
    environment = Environment(
        loader=PackageLoader("frossl.report"),
        extensions=["jinja2.ext.do"],
        autoescape=".html." in template,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": "{:.0%}".format, "thousands": "{:,.0f}".format}
    return environment.get_template(template).render(**values)


@cache
def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs  # not before it is needed: not every use of the package is a report

    return Markup(get_plotlyjs().replace("</script", "<\\/script"))
