"""The run in the terminal: what was found, what will be done, how it goes, what came out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from frossl.core.files import CONTROLS
from frossl.data.types import Dataset
from frossl.evals.robustness import under_augmentation
from frossl.evals.suite import ARMS, Evaluation, verdict
from frossl.report.words import ACCURACIES


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(42), duration(330), duration(7260)
    ('42 s', '5 min 30 s', '2 h 1 min')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min" + (f" {seconds % 60} s" if seconds % 60 else "")
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


INDENT = 7
"""Columns before the text of a line, which hold its heading if it has one."""


def say(console: Console, text: str, heading: str = "") -> None:
    """Prints a line of markup below or beside ``heading``; where it is too long it goes on below its text."""
    grid = Table.grid()
    grid.highlight = True
    grid.add_column(width=INDENT, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(f"[bold]{heading}[/]", text.translate(CONTROLS))
    console.print(grid)


def show_data(console: Console, data: Dataset) -> None:
    """Images, sizes, channels, classes or none, what was decided and what was skipped and why."""
    (h0, w0), (h1, w1), (h, w) = data.smallest, data.largest, data.typical
    sizes = f"{w0}x{h0}" if data.smallest == data.largest else f"{w0}x{h0} to {w1}x{h1}, median {w}x{h}"
    kind = {1: "grey", 3: "colour"}.get(data.channels, f"{data.channels} channels")
    if data.classes:
        names = ", ".join(data.classes[:10]) + (", ..." if len(data.classes) > 10 else "")
        classes = f"{len(data.classes)} classes ({names})"
    else:
        classes = "no labels"
    say(console, f"{escape(data.name)}: {escape(data.source)}", "Data")
    say(console, f"{len(data.train):,} images to train on, {len(data.test):,} held out; {sizes} pixels, {kind}")
    for line in (classes, *data.notes):
        say(console, escape(line))
    if data.skipped:
        reasons = Counter(s.reason for s in data.skipped)
        say(console, f"[yellow]skipped {len(data.skipped)} that could not be read:[/]")
        for skipped in data.skipped[:20]:
            say(console, f"  {escape(skipped.path)}: {escape(skipped.reason)}")
        if len(data.skipped) > 20:
            rest = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common(5))
            say(console, f"  and {len(data.skipped) - 20} more; all reasons: {escape(rest)}")


class _Bar(Progress):
    """A progress bar with lines of numbers below it, where a narrow terminal has room for them."""

    lines: tuple[str, ...] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield from (Padding(Text(line), (0, 0, 0, INDENT), expand=False) for line in self.lines)


class TrainingDisplay:
    """A progress bar in a terminal; elsewhere a line for each time the monitor looks."""

    def __init__(self, console: Console, views_per_step: int) -> None:
        self.console, self.views_per_step = console, views_per_step
        self.live = console.is_terminal and not console.is_dumb_terminal
        self.bar = _Bar(
            TextColumn("[bold]Train[/]  {task.fields[where]}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[speed]}"),
            console=console,
            refresh_per_second=4,
            disable=not self.live,
        )
        self.task = self.bar.add_task("train", total=1.0, visible=False, where="", left="", speed="")
        self.mark: tuple[float, int, float] | None = None
        self.speed = 0.0
        self.last: float | None = None

    def update(
        self, share: float, step: int, total: int | None, seconds: float, values: dict[str, float], looked: bool
    ) -> None:
        """Takes the position (0 to 1 and steps), the time in the loop, the newest numbers, if the monitor looked."""
        now = time.perf_counter()
        if self.mark is None:
            self.mark = (share, step, seconds)
        since, first, began = share - self.mark[0], step - self.mark[1], seconds - self.mark[2]
        if began > 0:
            self.speed = first * self.views_per_step / began
        left = began / since * (1 - share) if since > 0 else None
        where = f"step {step:,}" + (f"/{total:,}" if total is not None else "")
        speed = f"{self.speed:,.0f} views/s" if self.speed else ""
        lines = describe(values)
        if self.live:
            if self.last is None or now - self.last > 0.2 or share >= 1:
                self.last = now
                text = f"{duration(left)} left" if left is not None else ""
                self.bar.lines = lines
                self.bar.update(self.task, completed=share, visible=True, where=where, left=text, speed=speed)
        elif looked:
            parts = (f"{share:4.0%}", where, duration(seconds), *lines, speed)
            self.console.print(" " * INDENT + "  ".join(parts).rstrip(), highlight=False, soft_wrap=True)


def show_health(console: Console, step: int, health: dict[str, Any]) -> None:
    """A row ``health`` of the log: what state the run is in and which knob to turn, or that it is over."""
    state = escape(health["state"])
    if health.get("over"):
        if "now" not in health:  # else that has just been told in its place
            say(console, f"[dim]step {step:,}: no longer {state[:1].lower() + state[1:]}[/]")
        return
    say(
        console, f"[bold yellow]step {step:,}: {state}.[/] {escape(health['words'])} {escape(health['knob'])}", "Health"
    )


@contextmanager
def training(console: Console, views_per_step: int) -> Iterator[TrainingDisplay]:
    """The display while training goes on."""
    display = TrainingDisplay(console, views_per_step)
    with display.bar:
        yield display


def describe(values: dict[str, float]) -> tuple[str, ...]:
    """A line for the loss, with its terms where it has several, and one for whatever the monitor measured.

    >>> describe({"loss": 0.5, "entropy": -0.5, "invariance": 1.0, "lr": 0.1, "knn": 0.5, "effective_rank": 9.26})
    ('loss 0.50 = entropy -0.50 + invariance 1.00', 'kNN 0.500  rank 9.3')
    """
    apart = {"loss", "grad_norm", "lr", "probe_on_views", "knn", "probe", "effective_rank"}
    lines = []
    if "loss" in values:
        terms = [f"{name} {number(value)}" for name, value in values.items() if name not in apart]
        lines.append(f"loss {number(values['loss'])}" + (f" = {' + '.join(terms)}" if len(terms) > 1 else ""))
    figures = {"knn": "kNN {:.3f}", "probe": "probe {:.3f}", "effective_rank": "rank {:.1f}"}
    measured = [text.format(values[name]) for name, text in figures.items() if name in values]
    return (*lines, "  ".join(measured)) if measured else tuple(lines)


def number(value: float) -> str:
    """A term of a loss: two decimals, or two digits of what would round to nothing.

    >>> number(-4.953), number(0.00314), number(0.0), number(18234.5)
    ('-4.95', '0.0031', '0.00', '18,234.50')
    """
    return f"{value:.2g}" if 0 < abs(value) < 0.1 else f"{value:,.2f}"


ACROSS = 6
"""Most figures that stand side by side in a terminal; of more each has a row."""


def show_evaluation(console: Console, evaluation: Evaluation) -> None:
    """The table of arms, that of augmentations if they were measured, the protocols in a line each, the verdict."""
    headings = evaluation.headings()
    if headings:
        arms = {f"[bold]{arm}[/]" if arm == "pretrained" else arm: of for arm, of in evaluation.arms.items()}
        lines = [["features", *headings.values()]]
        lines += [[arm, *(_cell(name, values) for name in headings)] for arm, values in arms.items()]
        if len(headings) > ACROSS:
            lines = [list(column) for column in zip(*lines, strict=True)]
        table = Table(title=None, header_style="bold", show_edge=False)
        for i, heading in enumerate(lines[0]):
            table.add_column(heading, justify="right" if i else "left", no_wrap=True)
        for line in lines[1:]:
            table.add_row(*line)
        console.print(table)
    _show_augmentations(console, evaluation)
    about = [f"{evaluation.held_out:,} held-out images; the same standardisation for every arm"]
    about += [f"{arm}: {ARMS[arm]}" for arm in evaluation.arms if arm in ARMS]
    about += ["±: half of a 95 % interval; for few labels the standard deviation over draws"]
    for line in (*evaluation.protocols.values(), *about):
        console.print(Padding(Text(line, "dim"), (0, 0, 0, 2)))
    console.print(f"[bold]{escape(verdict(evaluation))}[/]")


def _show_augmentations(console: Console, evaluation: Evaluation) -> None:
    rows = under_augmentation(evaluation.arms)
    if rows:
        table = Table(title=None, header_style="bold", show_edge=False)
        table.add_column("kNN, cosine under", no_wrap=True)
        for arm in evaluation.arms:
            table.add_column(arm, justify="right", no_wrap=True)
        for words, cells in rows:
            table.add_row(words, *(_pair(cell) for cell in cells.values()))
        console.print(table)


def _pair(cell: dict[str, float]) -> str:
    return "  ".join(f"{cell[kind]:.3f}" if kind in cell else "    -" for kind in ("knn", "cosine"))


def _cell(name: str, values: dict[str, float]) -> str:
    if name not in values:
        return "-"
    if "rank" in name:
        return f"{values[name]:.1f}"
    spread = values.get(f"{name}_std")
    if spread is None and name in ACCURACIES and f"{name}_low" in values:
        spread = (values[f"{name}_high"] - values[f"{name}_low"]) / 2
    return f"{values[name]:.3f}" + (f"±{spread:.3f}" if spread is not None else "")
