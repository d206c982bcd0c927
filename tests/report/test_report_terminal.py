"""What a person sees in a terminal."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from frossl.report.terminal import INDENT, describe, say, training

VALUES = {
    "loss": 40.43,
    "invariance": 5.25,
    "variance": 34.02,
    "covariance": 0.0016,
    "grad_norm": 3.0,
    "lr": 0.1,
    "probe_on_views": 0.2,
    "probe": 0.175,
    "knn": 0.275,
    "effective_rank": 9.33,
}


def shown(display, width: int) -> list[str]:
    """The lines of the display at this moment."""
    console = Console(file=StringIO(), width=width)
    console.print(display.bar.get_renderable())
    return [line.rstrip() for line in printed(console) if line.strip()]


def printed(console: Console) -> list[str]:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_display_cuts_nothing_off(width):
    console = Console(file=StringIO(), force_terminal=True, color_system=None, width=width)
    with training(console, views_per_step=64) as display:
        assert shown(display, width) == []
        display.update(0.1, 100, 1000, 10.0, VALUES)
        display.last = None
        display.update(0.2, 200, 1000, 20.0, VALUES)
        bar, loss, figures = shown(display, width)
    assert bar.startswith("Train  step 200/1,000 ")
    assert bar.endswith(" 20% 1 min 20 s left 640 views/s")
    assert loss == " " * INDENT + "loss 40.43 = invariance 5.25 + variance 34.02 + covariance 0.0016"
    assert figures == " " * INDENT + "kNN 0.275  probe 0.175  rank 9.3"


def test_elsewhere_there_is_a_line_for_each_look_of_the_monitor():
    console = Console(file=StringIO(), width=40)
    with training(console, views_per_step=64) as display:
        display.update(0.1, 10, None, 10.0, {"loss": 1.0, "contrast": 1.0})
        display.update(0.2, 20, None, 20.0, VALUES)
        display.update(0.3, 30, None, 30.0, VALUES)
    loss, figures = describe(VALUES)
    assert printed(console) == [f"{'':{INDENT}} 20%  step 20  20 s  {loss}  {figures}  64 views/s"]


def test_a_loss_of_one_term_is_said_once():
    assert describe({"loss": 2.5, "contrast": 2.5, "lr": 0.1}) == ("loss 2.50",)
    assert describe({}) == ()


def test_a_long_line_goes_on_below_its_text():
    console = Console(file=StringIO(), width=30)
    say(console, "words of a line that is too long [bold]for[/] it", "Plan")
    assert [line.rstrip() for line in printed(console)] == [
        "Plan   words of a line that is",
        "       too long for it",
    ]
