"""``frossl report``: runs, or a comparison, as one HTML file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape

from frossl.core.types import UserError
from frossl.report.comparison import show_comparison, write_comparison
from frossl.report.page import show, write_report
from frossl.report.terminal import wrote
from frossl.runs.data import find_run_data
from frossl.runs.directory import read_run


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write what is known of one or several runs, side by side, as one HTML file that needs no network."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN...")]
    """run directories, or the directory of a comparison"""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """file to write (report.html, in the run directory if there is one run)"""
    data: str | None = None
    """where the data of the runs are now, if they were moved; kept in the runs"""
    open: bool = False
    """open it in a browser, where there is a display"""


def run(args: list[str], console: Console) -> int:
    given = tyro.cli(Report, prog="frossl report", args=args)
    if not given.runs:
        raise UserError("name at least one run directory: frossl report runs/NAME")
    if len(given.runs) == 1 and (given.runs[0] / "comparison.json").exists():
        if given.output is not None:
            raise UserError(f"-o {given.output}: the report of a comparison stands beside its runs; leave -o out")
        if given.data is not None:
            raise UserError("--data: the report of a comparison uses no images; leave --data out")
        show_comparison(console, write_comparison(given.runs[0]))
        say_where(given.runs[0] / "comparison.html", given.open, console)
        return 0
    for run in given.runs if given.data is not None else ():
        find_run_data(run, replace(read_run(run)[0], data=given.data))
    output = given.output or (given.runs[0] if len(given.runs) == 1 else Path()) / "report.html"
    with console.status("") as status:
        write_report(given.runs, output, log=status.update)
    say_where(output, given.open, console)
    return 0


def say_where(report: Path, in_browser: bool, console: Console) -> None:
    wrote(console, "Report", report)
    if in_browser:
        open_in_browser(report, console)


def open_in_browser(report: Path, console: Console) -> None:
    if not show(report):
        console.print(f"no display here to open it; take {escape(str(report))} to a browser", style="dim")
