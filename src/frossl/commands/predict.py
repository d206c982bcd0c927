"""``frossl predict``: labels for a whole folder from a few."""

from __future__ import annotations

import tyro
from rich.console import Console

from frossl.data.open import join_sources
from frossl.report import terminal
from frossl.train.predict import PredictOptions, predict_as


def run(args: list[str], console: Console) -> int:
    given = tyro.cli(PredictOptions, prog="frossl predict", args=join_sources(args))
    found = predict_as(given, console)
    low, high = found.interval
    accuracy = f"accuracy by cross-validation on {found.labelled:,} labels: {found.accuracy:.1%}"
    terminal.say(console, f"{accuracy} (95 % interval {low:.1%} to {high:.1%})", "Probe")
    sure = f"{found.kept:.1%} of the images are sure to {given.least:g} or more and get a label"
    if found.accuracy_kept is not None:
        sure += f"; of the labels that are as sure {found.accuracy_kept:.1%} are right"
    terminal.say(console, sure)
    terminal.say(console, f"calibration error {found.calibration:.3f}, temperature {found.temperature:.2f}")
    terminal.wrote(console, "Predictions", given.out)
    terminal.wrote(console, "To label next", given.next_file)
    return 0
