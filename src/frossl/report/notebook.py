"""The output of a run in a notebook: one text below the cell, updated in place as a terminal would."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from rich.console import Console

WIDTH, HEIGHT = 100, 1000
SECONDS_BETWEEN_UPDATES = 0.25
_TOKENS = re.compile(r"\n|\r|\x1b\[(?P<number>[?\d;]*)(?P<code>[A-Za-z])|[^\n\r\x1b]+|\x1b")


@contextmanager
def console_here() -> Iterator[Console]:
    """A console that prints to the terminal or, in a notebook, below the cell."""
    if not Console().is_jupyter:
        yield Console(emoji=False)
        return
    screen = Screen(_cell_output())
    console = Console(
        file=screen,
        force_terminal=True,
        force_jupyter=False,
        color_system="standard",
        legacy_windows=False,
        emoji=False,
        width=WIDTH,
        height=HEIGHT,
    )
    try:
        yield console
    finally:
        screen.show()


class Screen(io.StringIO):
    """A text file that obeys the codes with which rich moves the cursor up and erases lines.

    ``display`` gets the whole text: at once if it has more lines than before, else at most four times a second.
    """

    def __init__(self, display: Callable[[str], None]) -> None:
        super().__init__()
        self.display = display
        self.lines, self.row = [""], 0
        self.shown_lines, self.shown_at = 0, 0.0

    def write(self, text: str) -> int:
        for token in _TOKENS.finditer(text):
            code, number = token["code"], token["number"]
            if token[0] == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif code == "A":
                self.row = max(0, self.row - int(number or 1))
            elif code == "K":
                self.lines[self.row] = ""
            elif token[0] != "\r" and code in (None, "m"):  # "m" is a colour; rich erases a line that it writes again
                self.lines[self.row] += token[0]
        return len(text)

    def flush(self) -> None:
        if len(self.lines) > self.shown_lines or perf_counter() - self.shown_at > SECONDS_BETWEEN_UPDATES:
            self.show()

    def show(self) -> None:
        """Displays the text as it is now."""
        self.display("\n".join(self.lines).rstrip())
        self.shown_lines, self.shown_at = len(self.lines), perf_counter()


def _cell_output() -> Callable[[str], None]:
    """A function that puts a text into one output of the current cell, in place of the text before."""
    from IPython.display import display  # pyright: ignore[reportMissingImports]  # every notebook has it

    output: Any = None

    def show(text: str) -> None:
        nonlocal output
        bundle = {"text/plain": text}
        if output is None:
            output = display(bundle, raw=True, display_id=True)
        else:
            output.update(bundle, raw=True)

    return show
