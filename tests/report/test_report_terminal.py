"""What a person sees in a terminal."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from frossl.core.length import Length
from frossl.core.progress import Progress
from frossl.core.types import UserError
from frossl.evals.suite import Evaluation
from frossl.report.arms import arms_of, evaluation_table
from frossl.report.terminal import INDENT, logged, say, show_evaluation
from frossl.train.display import TrainingDisplay, describe

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
    display = TrainingDisplay(console, views_per_step=64)
    with display.bar:
        assert shown(display, width) == []
        for step in (100, 200):
            display.last = None
            display.update(Progress(Length.parse("1000it"), 1000, step, step / 10), VALUES)
        bar, loss, figures = shown(display, width)
    assert bar.startswith("Train  step 200/1,000 ")
    assert bar.endswith(" 20% 1 min 20 s left 640 views/s")
    assert (loss, figures) == tuple(" " * INDENT + line for line in describe(VALUES))


def test_elsewhere_there_is_a_line_for_each_look_of_the_monitor():
    console = Console(file=StringIO(), width=40)
    display = TrainingDisplay(console, views_per_step=64)
    for step, monitored in ((10, 0), (20, 20), (30, 20), (40, 40)):
        display.update(Progress(Length(100 / 60, "min"), None, step, float(step), monitored=monitored), VALUES)
    loss, figures = describe(VALUES)
    lines = [f"{'':{INDENT}} {n}0%  step {n}0  {n}0 s  {loss}  {figures}  64 views/s" for n in (2, 4)]
    assert printed(console) == lines


def test_the_log_has_the_lines_of_a_terminal_and_none_of_its_bars(tmp_path):
    console = Console(file=StringIO(), force_terminal=True, width=100)
    with logged(console, tmp_path / "log.txt"):
        say(console, "[bold]resnet18[/]", "Plan")
        display = TrainingDisplay(console, views_per_step=64)
        with display.bar:
            for step, monitored in ((10, 0), (20, 20)):
                display.update(Progress(Length.parse("40it"), 40, step, float(step), monitored=monitored), VALUES)
        with pytest.raises(ZeroDivisionError), logged(console, tmp_path / "other.txt"):
            1 / 0  # noqa: B018
    console.print("after")
    plan, look = (tmp_path / "log.txt").read_text().splitlines()
    assert plan.split() == ["Plan", "resnet18"]
    assert look.split()[:3] == ["50%", "step", "20/40"]
    assert (tmp_path / "other.txt").read_text() == "ZeroDivisionError: division by zero\n"
    assert "\x1b" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no disk that is always full")
@pytest.mark.parametrize("place", ["/dev/full", "/dev"])
def test_a_log_that_cannot_be_written_changes_nothing(place):
    console = Console(file=StringIO())
    with logged(console, Path(place)):
        console.print("goes well")
    with pytest.raises(UserError, match="what went wrong"), logged(console, Path(place)):
        raise UserError("what went wrong")
    assert printed(console) == ["goes well"]


def test_a_loss_is_told_with_its_terms_and_figures_by_their_names():
    loss, figures = describe(VALUES)
    terms = {"invariance": "5.25", "variance": "34.02", "covariance": "0.0016"}
    assert loss == "loss 40.43 = " + " + ".join(f"{name} {value}" for name, value in terms.items())
    assert figures.split() == ["kNN", "0.275", "probe", "0.175", "rank", "9.3"]


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


ARMS = {
    "pretrained": {"knn": 0.865, "knn_low": 0.858, "knn_high": 0.872, "linear": 0.89, "linear_low": 0.88}
    | {
        "linear_high": 0.9,
        "linear_10": 0.767,
        "linear_10_std": 0.01,
        "effective_rank": 32.1,
        "effective_rank_low": 31.0,
    }
    | {
        "effective_rank_high": 33.2,
        "alignment": 0.2,
        "uniformity": -2.5,
        "uniformity_low": -2.6,
        "uniformity_high": -2.4,
    },
    "untrained": {"knn": 0.775, "linear": 0.7, "effective_rank": 9.0},
    "raw pixels": {"knn": 0.857, "linear": 0.8},
}


def test_the_table_has_intervals_of_accuracies_and_fits_a_narrow_terminal():
    console = Console(file=StringIO(), width=80)
    show_evaluation(console, Evaluation(ARMS, {"knn": "kNN: as it is"}, 10_000))
    lines = printed(console)
    row = next(line for line in lines if "pretrained" in line)
    for cell in ("0.865±0.007", "0.890±0.010", "0.767±0.012", "32.1", "0.200", "−2.500"):
        assert cell in row
    text = " ".join(lines)
    assert "95 % interval" in text
    assert "untrained: same architecture" in text
    assert "supervised" not in text
    assert "cosine" not in text


def test_the_verdict_and_advice_come_before_the_protocols():
    console = Console(file=StringIO(), width=80)
    show_evaluation(console, Evaluation(ARMS, {"knn": "kNN: as it is"}, 10_000), ("Turn it.",))
    text = " ".join(printed(console))
    order = [text.index(part) for part in ("pretrained", "Pretraining helped", "Turn it.", "kNN: as it is", "±: half")]
    assert order == sorted(order)


def test_an_interval_means_the_same_in_the_terminal_and_in_the_report():
    arms = arms_of([("", Evaluation(ARMS, {}, 10_000))])
    columns = [index_of(evaluation_table(arms, brief=brief), text) for brief, text in ((True, "10 l"), (False, "10 l"))]
    cells = [evaluation_table(arms, brief=brief).rows[0][i] for brief, i in zip((True, False), columns, strict=True)]
    assert cells[0] == cells[1]


def index_of(table, heading: str) -> int:
    return next(i for i, column in enumerate(table.columns) if column.startswith(heading))


def test_many_figures_stand_below_each_other_and_can_be_read():
    names = ("knn", "linear", "linear_1", "linear_10", "ridge", "finetune_1pct", "rankme", "lidar")
    values = {name: (i + 1) / 8 for i, name in enumerate(names)} | {"knn_low": 0.1, "knn_high": 0.15}
    arms = dict.fromkeys(("pretrained", "untrained", "raw pixels"), values)
    console = Console(file=StringIO(), width=80)
    show_evaluation(console, Evaluation(arms | {"supervised": {"knn": 0.9, "knn_low": 0.8, "knn_high": 1.0}}, {}, 10))
    cells = [[cell.strip() for cell in line.split("│")] for line in printed(console) if "│" in line]
    assert ["kNN", "0.125±0.025", "0.125±0.025", "0.125±0.025", "0.900±0.100"] in cells
    assert ["RankMe", "0.9", "0.9", "0.9", "–"] in cells
    assert ["LiDAR", "1.0", "1.0", "1.0", "–"] in cells


def test_augmentations_have_tables_of_their_own():
    of_both = {"knn_under_flip": 0.8, "knn_under_flip_low": 0.7, "knn_under_flip_high": 0.9, "cosine_under_flip": 0.95}
    arms = {"pretrained": of_both, "raw pixels": {"cosine_under_flip": 0.1}}
    console = Console(file=StringIO(), width=80)
    show_evaluation(console, Evaluation(arms | {"untrained": {}}, {}, 10))
    rows = [[cell.strip() for cell in line.split("│")] for line in printed(console) if "flip left to right" in line]
    assert rows == [["flip left to right", "0.800±0.100"], ["flip left to right", "0.950", "0.100"]]
