"""``--resume`` with another length: learning rate, momentum and temperatures around the join, and what is kept."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from frossl.core.types import UserError
from frossl.methods import METHODS
from frossl.nn.optim import warmup_cosine
from frossl.report.tables import summary
from frossl.runs.checkpoint import newest_checkpoint
from frossl.runs.config import Config
from frossl.runs.directory import LOG, read_run, unfinished
from frossl.runs.record import read_record, read_rows
from frossl.train.evaluate import evaluate_run
from frossl.train.pretrain import pretrain
from frossl.train.schedule import REWARM, REWARM_PEAK
from frossl.train.step import Stepper
from frossl.train.supervised import supervised_encoder
from report.tiny_runs import config, folder

pytestmark = pytest.mark.usefixtures("no_reports", "two_penalties")

PEAK = 2e-3 * 8 / 256
"""Of every run here: 8 images a step, 4 steps an epoch."""
HALF = REWARM_PEAK * PEAK


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return folder(tmp_path_factory.mktemp("images"))


def asked(images: Path, out: Path, method: str = "frossl", length: str = "4it", **changes) -> Config:
    options = {
        "frossl": {"projector": "16-bn-relu-16"},
        "byol": {"projector": "16-bn-relu-16", "predictor_width": 16},
        "mocov2plus": {"projector": "16-relu-16", "queue": 24},
        "dino": {"projector": "16-gelu-16", "prototypes": 32, "teacher_temperature": 0.07, "teacher_warmup": 4.0},
    }
    objective = METHODS[method].Config(**options[method])
    how = {
        "evaluate": False,
        "views": 2,
        "name": "r",
        "batch": 8,
        "telemetry_every": 0,
        "monitor_every": "100%",
    } | changes
    return config(images, out, method=method, objective=objective, length=length, **how)


@pytest.fixture(scope="module")
def ended(images, tmp_path_factory) -> Path:
    return pretrain(asked(images, tmp_path_factory.mktemp("ended"))).run


@pytest.fixture
def finished(ended, tmp_path) -> Path:
    """A run that took its four steps."""
    return shutil.copytree(ended, tmp_path / "r")


class Killed(BaseException):
    """Ends a run at once, as a kill does."""


def killed(monkeypatch, step: int, work) -> None:
    """Does ``work``, whose run is killed before ``step``."""
    step_of = Stepper.__call__

    def watched(self, batch, at, *rest):
        if at == step:
            raise Killed
        return step_of(self, batch, at, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "__call__", watched)
        with pytest.raises(Killed):
            work()


def on(run: Path, length: str, **changes) -> str:
    """Goes on with ``run`` to ``length``; gives what was printed, on one line."""
    said = StringIO()
    config = dataclasses.replace(read_run(run)[0], length=length, **changes)
    pretrain(config, resume=run, console=Console(file=said, width=1000))
    return re.sub(r"\s+", " ", said.getvalue())


def column(run: Path, name: str) -> list[float]:
    """Values of the rows of the log, of which there is one for each step."""
    rows = [row for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row[name] for row in rows]


def falls(values: list[float]) -> bool:
    return all(a >= b for a, b in pairwise(values))


def about(run: Path) -> dict:
    return json.loads((run / "config.json").read_text())


@pytest.mark.parametrize("length", ["44it", "11ep", "352img", "704view"])
def test_a_finished_run_warms_up_again_to_half_its_peak_and_decays_to_the_new_end(finished, length):
    before = column(finished, "lr")
    said = on(finished, length)
    lr = column(finished, "lr")
    assert lr[:4] == before
    assert len(lr) == 44
    added = lr[4:]
    warm = round(REWARM * 40)
    assert added[: warm + 1] == pytest.approx([HALF * i / warm for i in range(warm + 1)])
    assert falls(added[warm:])
    assert 0 < added[-1] < 0.01 * HALF
    assert f"50% of its peak ({HALF:g})" in said
    (extension,) = about(finished)["extensions"]
    assert (extension["step"], extension["before"], extension["again"]) == (4, "4it", True)
    assert about(finished)["config"]["length"] == extension["after"]
    assert "4it up to step 4" in " ".join(summary(read_record(finished)))
    assert unfinished(finished) == ""


@pytest.mark.parametrize("method", ["byol", "mocov2plus", "dino"])
def test_momentum_and_temperature_go_on_from_the_values_they_had(images, tmp_path, method):
    run = pretrain(asked(images, tmp_path, method)).run
    said = on(run, "24it")
    momentum, lr = column(run, "momentum"), column(run, "lr")
    options = read_run(run)[0].objective
    first, last = options.momentum, options.final_momentum
    assert momentum[0] == first
    assert momentum[4] == pytest.approx(last)  # where the first schedule ended
    middle = 4 + round(REWARM * 20)
    assert momentum[middle] == pytest.approx((first + last) / 2)
    assert falls(momentum[4 : middle + 1])
    assert falls([-value for value in momentum[middle:]])
    for value, rate in zip(momentum[4:], lr[4:], strict=True):
        assert last - value == pytest.approx((last - first) * rate / PEAK, abs=1e-9)
    assert re.search(rf"momentum {last:g} to {(first + last) / 2:g} to {last:g}", said)
    if method == "dino":
        warm = [0.04 + min(step / 16, 1) * 0.03 for step in range(24)]  # four epochs, whatever the length
        assert column(run, "teacher_temperature") == pytest.approx(warm, abs=1e-5)
        assert "teacher temperature 0.0475 to 0.0475 to 0.07" in said


def test_an_interrupted_run_goes_on_with_its_schedule_towards_the_new_end(images, tmp_path, monkeypatch):
    saving = {"checkpoint_every": "6it"}
    killed(monkeypatch, 8, lambda: pretrain(asked(images, tmp_path, "byol", length="12it", **saving)))
    run = tmp_path / "r"
    said = on(run, "30it")
    lr, momentum = column(run, "lr"), column(run, "momentum")
    along = [step / 12 if step < 6 else 0.5 + 0.5 * (step - 6) / 24 for step in range(30)]
    assert lr == pytest.approx([PEAK * warmup_cosine(share, 0.05) for share in along])
    assert momentum == sorted(momentum)
    assert falls(lr[1:])
    assert f"learning rate on from {lr[6]:g} to 0" in said
    assert f"momentum {momentum[6]:.6g} to 1" in said


def test_a_run_is_extended_twice_and_a_third_time_before_its_end(finished, monkeypatch):
    on(finished, "3ep")
    killed(monkeypatch, 22, lambda: on(finished, "32it", checkpoint_every="11it"))
    on(finished, "42it")
    lr = column(finished, "lr")
    assert (lr[4], lr[12]) == (0, 0)
    assert lr[13] == pytest.approx(HALF)
    assert falls(lr[13:])
    assert lr[22] == pytest.approx(HALF * warmup_cosine(0.5, REWARM))
    assert abs(lr[23] - lr[22]) < abs(lr[22] - lr[21])  # the rest over twice as many steps
    kept = about(finished)["extensions"]
    assert [(e["step"], e["before"], e["after"], e["start"], e["again"]) for e in kept] == [
        (4, "4it", "3ep", 0.0, True),
        (12, "3ep", "32it", 0.0, True),
        (22, "32it", "42it", 0.5, True),
    ]
    assert "3ep up to step 12" in " ".join(summary(read_record(finished)))


def test_an_extension_that_is_killed_and_resumed_is_bit_for_bit_the_one_that_was_not(images, tmp_path, monkeypatch):
    one = pretrain(asked(images, tmp_path, "dino", name="a")).run
    runs = [one, shutil.copytree(one, tmp_path / "b")]
    on(runs[0], "20it")
    saving = {"checkpoint_every": "6it"}
    killed(monkeypatch, 5, lambda: on(runs[1], "20it", **saving))  # before anything of it is saved
    assert newest_checkpoint(runs[1]).stem.endswith("04")
    assert re.search("step 4 of 20", unfinished(runs[1]))
    again = dataclasses.replace(read_run(runs[1])[0], **saving)
    killed(monkeypatch, 14, lambda: pretrain(again, resume=runs[1]))
    assert newest_checkpoint(runs[1]).stem.endswith("12")
    pretrain(again, resume=runs[1])
    for name in ("loss", "lr", "momentum"):
        assert column(runs[0], name) == column(runs[1], name)
    for file in ("encoder.safetensors", "encoder_averaged.safetensors"):
        one, other = (load_file(run / file) for run in runs)
        assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = (about(run)["extensions"] for run in runs)
    assert [e | {"seconds": 0} for e in one] == [e | {"seconds": 0} for e in other]


@pytest.mark.parametrize(
    ("length", "says"),
    [("3it", "3it, which is 3 steps: .*4it has trained 4 steps.*give more"), ("9min", "in ep, it, img or view")],
)
def test_a_length_that_is_behind_or_by_the_clock_is_refused_and_nothing_changes(finished, length, says):
    kept = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file() and p.name != LOG}
    with pytest.raises(UserError, match=says):
        on(finished, length)
    assert {p: p.read_bytes() for p in finished.rglob("*") if p.is_file() and p.name != LOG} == kept
    on(finished, "1ep")  # the same in another unit
    assert (finished / "config.json").read_bytes() == kept[finished / "config.json"]


def test_a_run_that_was_stopped_may_come_to_its_end_sooner(images, tmp_path, monkeypatch):
    killed(monkeypatch, 5, lambda: pretrain(asked(images, tmp_path, length="40it", checkpoint_every="4it")))
    on(tmp_path / "r", "10it", checkpoint_every="10min")
    lr = column(tmp_path / "r", "lr")
    assert len(lr) == 10
    assert falls(lr[2:])
    assert lr[-1] == pytest.approx(PEAK * warmup_cosine(0.1 + 0.9 * 5 / 6, 0.05))


def test_a_length_in_minutes_goes_on_by_its_clock(images, tmp_path):
    run = pretrain(asked(images, tmp_path, length="0.01min", checkpoint_every="10min")).run
    steps = len(column(run, "lr"))
    with pytest.raises(UserError, match=r"0\.005min: .*has trained 0\.0[12] min"):
        on(run, "0.005min")
    with pytest.raises(UserError, match="give a length in min"):
        on(run, "100ep")
    on(run, "0.03min")
    lr = column(run, "lr")[steps:]
    assert lr[0] == 0
    assert 0.9 * HALF < max(lr) <= HALF
    assert lr[-1] < 0.2 * HALF
    assert read_rows(run / "metrics.jsonl")[-1]["seconds"] > 1.7


def test_evaluations_of_the_encoder_as_it_was_are_moved_aside_and_the_supervised_arm_goes_on(finished):
    evaluate_run(finished, others={"supervised": supervised_encoder(finished)}, protocols=("rank",))
    before = (finished / "evaluation.json").read_text()
    on(finished, "10it")
    assert (finished / "evaluation-step-4.json").read_text() == before
    assert not (finished / "evaluation.json").exists()
    supervised_encoder(finished)
    assert len(column(finished / "supervised", "lr")) == 10
    assert [e["step"] for e in about(finished / "supervised")["extensions"]] == [4]


def test_the_command_line_goes_on_to_a_longer_length(finished, frossl):
    code, said = frossl("pretrain", "--resume", finished, "--length", "2ep")
    assert code == 0
    assert "4it, now 2ep" in said
    assert len(column(finished, "lr")) == 8
    code, said = frossl("pretrain", "--resume", finished, "--length", "1ep")
    assert (code, "give more" in said) == (2, True)
