"""The run in the terminal: what was found, what will be done, how it goes, what came out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from frossl.data.types import Dataset
from frossl.evals.suite import Evaluation, verdict


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
    console.print(f"[bold]Data[/]   {escape(data.name)}: {escape(data.source)}")
    console.print(f"       {len(data.train):,} images to train on, {len(data.test):,} held out; {sizes} pixels, {kind}")
    console.print(f"       {escape(classes)}")
    for note in data.notes:
        console.print(f"       {escape(note)}")
    if data.skipped:
        reasons = Counter(s.reason for s in data.skipped)
        console.print(f"       [yellow]skipped {len(data.skipped)} that could not be read:[/]")
        for skipped in data.skipped[:20]:
            console.print(f"         {escape(skipped.path)}: {escape(skipped.reason)}")
        if len(data.skipped) > 20:
            rest = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common(5))
            console.print(f"         and {len(data.skipped) - 20} more; all reasons: {escape(rest)}")


class TrainingDisplay:
    """A progress bar in a terminal; elsewhere a line for each time the monitor looks."""

    def __init__(self, console: Console, views_per_step: int) -> None:
        self.console, self.views_per_step = console, views_per_step
        self.bar = Progress(
            TextColumn("[bold]Train[/]  {task.fields[where]}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]} left"),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            refresh_per_second=4,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("train", total=1.0, where="", left="?", numbers="")
        self.mark: tuple[float, int, float] | None = None
        self.speed = 0.0
        self.last: float | None = None

    def update(self, share: float, step: int, total: int | None, seconds: float, values: dict[str, float]) -> None:
        """Takes the position (0 to 1 and steps), the time in the loop, and the newest numbers."""
        now = time.perf_counter()
        if self.mark is None:
            self.mark = (share, step, seconds)
        since, first, began = share - self.mark[0], step - self.mark[1], seconds - self.mark[2]
        if began > 0:
            self.speed = first * self.views_per_step / began
        left = began / since * (1 - share) if since > 0 else None
        where = f"step {step:,}" + (f"/{total:,}" if total is not None else "")
        numbers = describe(values) + (f"  {self.speed:,.0f} views/s" if self.speed else "")
        if self.console.is_terminal:
            if self.last is None or now - self.last > 0.2 or share >= 1:
                self.last = now
                text = duration(left) if left is not None else "?"
                self.bar.update(self.task, completed=share, where=where, left=text, numbers=numbers)
        elif "effective_rank" in values and values["effective_rank"] != self.last:
            self.last = values["effective_rank"]
            self.console.print(f"       {share:4.0%}  {where}  {duration(seconds)}  {numbers}", highlight=False)


@contextmanager
def training(console: Console, views_per_step: int) -> Iterator[TrainingDisplay]:
    """The display while training goes on."""
    display = TrainingDisplay(console, views_per_step)
    with display.bar:
        yield display


def describe(values: dict[str, float]) -> str:
    """Loss with its terms, then whatever the monitor measured."""
    apart = {"loss", "grad_norm", "lr", "probe_on_views", "knn", "probe", "effective_rank"}
    parts = []
    if "loss" in values:
        terms = " + ".join(f"{name} {value:.2f}" for name, value in values.items() if name not in apart)
        parts.append(f"loss {values['loss']:.2f} = {terms}")
    names = {"knn": "kNN", "probe": "probe", "effective_rank": "rank"}
    parts += [f"{text} {values[name]:.3g}" for name, text in names.items() if name in values]
    return "  ".join(parts)


def show_evaluation(console: Console, evaluation: Evaluation) -> None:
    """The table of arms, the protocols in a line each, and the verdict."""
    headings = evaluation.headings()
    table = Table(title=None, header_style="bold")
    table.add_column("features", no_wrap=True)
    for heading in headings.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for arm, values in evaluation.arms.items():
        cells = [_cell(name, values) for name in headings]
        table.add_row(f"[bold]{arm}[/]" if arm == "pretrained" else arm, *cells)
    console.print(table)
    for protocol in evaluation.protocols.values():
        console.print(f"  {escape(protocol)}", style="dim", highlight=False)
    console.print(
        f"  {evaluation.held_out:,} held-out images; untrained: same architecture and seed, batch-norm statistics "
        "from one pass over the training images; the same standardisation for every arm",
        style="dim",
        highlight=False,
    )
    console.print(f"[bold]{escape(verdict(evaluation))}[/]")


def _cell(name: str, values: dict[str, float]) -> str:
    if name not in values:
        return "-"
    if name == "effective_rank":
        return f"{values[name]:.1f}"
    spread = values.get(f"{name}_std")
    return f"{values[name]:.3f}" + (f"±{spread:.3f}" if spread is not None else "")
