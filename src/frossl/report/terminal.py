"""Output in the terminal: data, progress, evaluations, and the log file of a run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter

import torch
from rich.console import Console, ConsoleRenderable, NewLine, RenderHook
from rich.control import Control
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from frossl.core.files import CONTROLS
from frossl.core.types import known
from frossl.data.types import Dataset, Skipped
from frossl.evals.suite import ARMS, Evaluation
from frossl.evals.verdict import verdict
from frossl.report.arms import arms_of, augmentation_tables, evaluation_table
from frossl.report.table import for_terminal


def duration(seconds: float) -> str:
    """Seconds in words.

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
SECONDS_BETWEEN_LINES = 30


def say(console: Console, text: str, heading: str = "") -> None:
    """Prints a line of markup below or beside ``heading``; where it is too long it goes on below its text."""
    grid = Table.grid()
    grid.highlight = True
    grid.add_column(width=INDENT, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(f"[bold]{heading}[/]", text.translate(CONTROLS))
    console.print(grid)


def warn(console: Console, text: str) -> None:
    """Prints a line that the user should not miss."""
    console.print(f"[yellow]{escape(text)}[/]", highlight=False, soft_wrap=True)


def wrote(console: Console, heading: str, path: Path) -> None:
    """Prints where a file was written."""
    console.print(f"[bold]{heading}[/] {escape(str(path))}", highlight=False, soft_wrap=True)


def detail(console: Console) -> Callable[[str], None]:
    """A function that prints lines of lesser interest, such as the progress of decoding."""
    return lambda message: console.print(" " * INDENT + escape(message), style="dim")


class _Copy(RenderHook):
    """Prints to a second console too, except what only moves the cursor of the first."""

    def __init__(self, copy: Console) -> None:
        self.copy = copy

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        with suppress(OSError):
            if lines := [x for x in renderables if not isinstance(x, (Control, NewLine))]:
                self.copy.print(*lines)
        return renderables


@contextmanager
def logged(console: Console, path: Path) -> Iterator[None]:
    """Appends what is printed meanwhile to a file, as plain lines, even if the console is quiet.

    If the file cannot be written, lines are missing there, and nothing else happens.
    """
    try:
        file = path.open("a", buffering=1, encoding="utf-8", errors="replace")
    except OSError:
        file = open(os.devnull, "a")  # noqa: SIM115  # closed below
    width = max(console.width, 100)
    look = {"width": width, "color_system": None, "emoji": False, "soft_wrap": True, "force_jupyter": False}
    console.push_render_hook(_Copy(Console(file=file, **look)))
    try:
        yield
    except Exception as error:
        with suppress(OSError):
            file.write(f"{type(error).__name__}: {error}\n".translate(CONTROLS))
        raise
    finally:
        console.pop_render_hook()
        with suppress(OSError):  # closing tries to write the rest again
            file.close()


@contextmanager
def working(console: Console, what: str) -> Iterator[Callable[[str], None]]:
    """Shows the messages given to the yielded function: in a terminal in one place, elsewhere line by line."""
    with console.status(what) as status:

        def log(message: str) -> None:
            status.update(escape(message))
            if not console.is_terminal:
                console.print(" " * INDENT + escape(message), style="dim", highlight=False, soft_wrap=True)

        yield log


@contextmanager
def counting(console: Console, what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A progress bar of ``total`` images in a terminal, elsewhere a line every 30 s; ``done`` were done before.

    The yielded function takes the number of further images. The remaining time goes by the speed so far.
    """
    start, first, due = perf_counter(), done, perf_counter() + SECONDS_BETWEEN_LINES
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total, completed=done, left="")

        def advance(further: int) -> None:
            nonlocal done, due
            done += further
            now = perf_counter()
            speed = (done - first) / (now - start)
            left = f"{speed:,.0f} images a second, {duration((total - done) / speed)} left"
            bar.update(task, completed=done, left=left)
            if not console.is_terminal and now > due and done < total:
                due = now + SECONDS_BETWEEN_LINES
                detail(console)(f"{what}: {done:,} of {total:,} images, {left}")

        yield advance


def show_data(console: Console, data: Dataset) -> None:
    """Prints numbers and sizes of images, channels, classes, notes, and the files that were skipped and why."""
    show_images(console, data, f"{len(data.train):,} images to train on, {len(data.test):,} held out", data.notes)


def show_images(console: Console, data: Dataset, count: str, notes: Sequence[str] = ()) -> None:
    """As :func:`show_data`, with the number of images in words."""
    (h0, w0), (h1, w1), (h, w) = data.smallest, data.largest, data.typical
    sizes = f"{w0}x{h0}" if data.smallest == data.largest else f"{w0}x{h0} to {w1}x{h1}, median {w}x{h}"
    kind = {1: "grey", 3: "colour"}.get(data.channels, f"{data.channels} channels")
    pairs = ", ".join(f"{low:g} to {high:g}" for low, high in zip(data.range[::2], data.range[1::2], strict=True))
    values = data.values + (f" from {pairs}" if pairs else "") + (f" in {data.levels} levels" if data.levels else "")
    say(console, f"{escape(data.name)}: {escape(data.source)}", "Data")
    say(console, f"{count}; {sizes} pixels, {kind}, {values}")
    for line in (_labels(data), *notes):
        say(console, escape(line))
    if data.skipped:
        show_skipped(console, f"skipped {len(data.skipped)} that could not be read:", data.skipped)


def _labels(data: Dataset) -> str:
    """What the labels are."""
    if data.classes:
        names = ", ".join(data.classes[:10]) + (", ..." if len(data.classes) > 10 else "")
        return f"{len(data.classes)} classes ({names})"
    if data.targets == "values":
        labels = [split.labels for split in (data.train, data.test) if split.labels is not None]
        found = torch.cat([y[known(y)] for y in labels])
        return f"values from {found.min():g} to {found.max():g}; kNN, probes and supervised arms are for classes"
    if data.targets == "multilabel":
        names = ", ".join(data.tags[:10]) + (", ..." if len(data.tags) > 10 else "")
        return f"{len(data.tags)} labels, several an image ({names}); kNN and supervised arms are for classes"
    return "no labels"


def show_skipped(console: Console, title: str, skipped: Sequence[Skipped]) -> None:
    """``title``, the first 20 and the commonest reasons."""
    reasons = Counter(s.reason for s in skipped)
    say(console, f"[yellow]{escape(title)}[/]")
    for one in skipped[:20]:
        say(console, f"  {escape(one.path)}: {escape(one.reason)}")
    if len(skipped) > 20:
        rest = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common(5))
        say(console, f"  and {len(skipped) - 20} more; all reasons: {escape(rest)}")


ACROSS = 6
"""Most figures that stand side by side in a terminal; of more each has a row."""


def show_evaluation(console: Console, evaluation: Evaluation, advice: Sequence[str] = ()) -> None:
    """The tables of arms, the verdict with ``advice``, and how all of it was measured."""
    show_tables(console, evaluation)
    console.print(f"[bold]{escape(verdict(evaluation))}[/]")
    for text in advice:
        console.print(escape(text), highlight=False, soft_wrap=True)
    show_protocols(console, evaluation)


def show_tables(console: Console, evaluation: Evaluation) -> None:
    """The table of arms, and those of augmentations if they were measured."""
    arms = arms_of([("", evaluation)])
    table = evaluation_table(arms, brief=True)
    if len(table.columns) > 1:
        console.print(for_terminal(table.transposed() if len(table.columns) > ACROSS + 1 else table))
    for made in augmentation_tables(arms):
        console.print(for_terminal(made))


def show_protocols(console: Console, evaluation: Evaluation) -> None:
    """The protocols, and what the arms are, in a line each."""
    about = [f"{evaluation.held_out:,} held-out images; the same standardisation for every arm"]
    about += [f"{arm}: {ARMS[arm]}" for arm in evaluation.arms if arm in ARMS]
    about += ["±: half of a 95 % interval, over held-out images and, for few labels, over draws"]
    for line in (*evaluation.protocols.values(), *about):
        console.print(Padding(Text(line, "dim"), (0, 0, 0, 2)))
