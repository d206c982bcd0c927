"""A table of numbers, and how it is shown in a terminal and in Markdown; ``templates/parts.html.j2`` has it in HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table as RichTable


@dataclass(frozen=True)
class Cell:
    """A value as text, half of its interval if it has one, and whether it is highlighted.

    A missing value is a dash.
    """

    value: str = "–"
    margin: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A heading for each column, and rows that begin with a name."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def transposed(self) -> Table:
        """Rows as columns."""
        names, *rows = zip(map(Cell, self.columns), *self.rows, strict=True)
        return Table(self.title, [cell.value for cell in names], rows)


def number(value: float | None, digits: int = 3, margin: float | None = None, best: bool = False) -> Cell:
    """A cell with a number.

    >>> number(-1234.56, 1, 0.25)
    Cell(value='−1,234.6', margin='±0.2', best=False)
    """
    if value is None:
        return Cell()
    return Cell(minus(f"{value:,.{digits}f}"), "" if margin is None else f"±{margin:.{digits}f}", best)


def minus(text: str) -> str:
    """Hyphens before numbers as minus signs.

    >>> minus("-0.5, kNN -2.7 points, a-1")
    '−0.5, kNN −2.7 points, a-1'
    """
    return re.sub(r"(?<!\S)-(?=\d)", "−", text)


def for_terminal(table: Table) -> RichTable:
    """The table for a console."""
    made = RichTable(title=escape(table.title) or None, title_justify="left", header_style="bold", show_edge=False)
    for i, column in enumerate(table.columns):
        made.add_column(escape(column), justify="right" if i else "left", no_wrap=i > 0)
    for row in table.rows:
        texts = ((escape(cell.value + cell.margin), cell.best) for cell in row)
        made.add_row(*(f"[bold]{text}[/]" if best else text for text, best in texts))
    return made


def markdown(table: Table) -> list[str]:
    """The lines of the table, with its title above them."""
    lines = [table.columns, ["---"] * len(table.columns), *([c.value + c.margin for c in row] for row in table.rows)]
    rows = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
    return ["", f"### {table.title}", "", *(f"| {row} |" for row in rows)]
