"""The live display of a training run in the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from frossl.core.progress import Progress as RunProgress
from frossl.report.terminal import INDENT, duration, say


class _Bar(Progress):
    """A progress bar with lines of numbers below it, where a narrow terminal has room for them."""

    lines: tuple[str, ...] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield from (Padding(Text(line), (0, 0, 0, INDENT), expand=False) for line in self.lines)


class TrainingDisplay:
    """A line for each measurement of the monitor, and in a terminal a progress bar below."""

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

    def update(self, progress: RunProgress, values: dict[str, float]) -> None:
        """Shows the position of the run and its newest numbers."""
        fraction, step, total, seconds = progress.fraction, progress.step, progress.total, progress.seconds
        self.mark = self.mark or (fraction, step, seconds)
        done, steps, took = fraction - self.mark[0], step - self.mark[1], seconds - self.mark[2]
        where = f"step {step:,}" + (f"/{total:,}" if total is not None else "")
        speed = f"{steps * self.views_per_step / took:,.0f} views/s" if took > 0 else ""
        lines = describe(values)
        if self.live:
            left = f"{duration(took / done * (1 - fraction))} left" if done > 0 else ""
            self.bar.lines = lines
            self.bar.update(self.task, completed=fraction, visible=True, where=where, left=left, speed=speed)
        if progress.monitored == step:
            parts = (f"{fraction:4.0%}", where, duration(seconds), *lines, speed)
            self.console.print(" " * INDENT + "  ".join(parts).rstrip(), highlight=False, soft_wrap=True)

    def health(self, step: int, row: dict[str, Any]) -> None:
        """A row ``health`` of the log: what state the run is in and what to change, or that it is over."""
        state = escape(row["state"])
        if not row.get("over"):
            text = f"[bold yellow]step {step:,}: {state}.[/] {escape(row['message'])} {escape(row['remedy'])}"
            say(self.console, text, "Health")
        elif "now" not in row:  # else the state that replaced it has just been shown
            say(self.console, f"[dim]step {step:,}: no longer {state[:1].lower() + state[1:]}[/]")


def describe(values: dict[str, float]) -> tuple[str, ...]:
    """A line for the loss, with its terms where it has several, and one for whatever the monitor measured.

    >>> describe({"loss": 0.5, "entropy": -0.5, "invariance": 1.0, "lr": 0.1, "knn": 0.5, "effective_rank": 9.26})
    ('loss 0.50 = entropy -0.50 + invariance 1.00', 'kNN 0.500  rank 9.3')
    """
    figures = {"knn": "kNN {:.3f}", "knn_balanced": "kNN bal. {:.3f}", "probe": "probe {:.3f}", "ridge": "ridge {:.3f}"}
    figures |= {"effective_rank": "rank {:.1f}"}
    apart, lines = {"loss", "grad_norm", "lr", "loss_scale", "probe_on_views", "start_neighbours", *figures}, []
    if "loss" in values:
        terms = [f"{name} {number(value)}" for name, value in values.items() if name not in apart]
        lines.append(f"loss {number(values['loss'])}" + (f" = {' + '.join(terms)}" if len(terms) > 1 else ""))
    measured = [text.format(values[name]) for name, text in figures.items() if name in values]
    return (*lines, "  ".join(measured)) if measured else tuple(lines)


def number(value: float) -> str:
    """A term of a loss: two decimals, or two digits of what would round to nothing.

    >>> number(-4.953), number(0.00314), number(0.0), number(18234.5)
    ('-4.95', '0.0031', '0.00', '18,234.50')
    """
    return f"{value:.2g}" if 0 < abs(value) < 0.1 else f"{value:,.2f}"
