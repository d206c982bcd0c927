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
    if not found.above_guess:
        terminal.warn(
            console,
            f"No better than a guess, as far as {found.labelled:,} labels can tell: the largest class for every image "
            f"is right for {found.guess:.1%}. Label more images, or use a better encoder (--encoder)",
        )
    without = f"{found.kept:,} of the {found.unlabelled:,} images without a label"
    sure = f"{without} are sure to {given.least:g} or more and get one"
    if found.accuracy_kept is not None:
        sure += f"; of the labelled images that are as sure {found.accuracy_kept:.1%} are classified right"
    terminal.say(console, sure)
    terminal.say(console, f"calibration error {found.calibration:.3f}, temperature {found.temperature:.2f}")
    terminal.wrote(console, "Predictions", given.out)
    terminal.wrote(console, "To label next", given.next_file)
    return 0
