"""``frossl.pretrain`` as people call it from Python, in a script and in a notebook."""

from __future__ import annotations

import json
import re
import sys
import types
from io import StringIO

import pytest
import torch
from rich.console import Console
from test_train_loop import TINY, folder_of_images
from torch import nn

import frossl
from frossl.commands.library import EvaluationTable
from frossl.core.types import UserError
from frossl.data import from_tensors
from frossl.data.types import Split
from frossl.report.verdict import judge
from frossl.runs.record import read_record

SMALL = {"backbone_options": TINY, "batch": 8, "held_out": 0.25, "workers": 0, "projector": "16-bn-relu-16"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_of_images(tmp_path_factory.mktemp("front") / "images")


@pytest.fixture(scope="module")
def result(folder, tmp_path_factory):
    """One whole run: trained, evaluated, with its report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("place"))
        patch.setattr(sys.modules["frossl.evals.linear"], "PENALTIES", (1e-1, 1e-3))
        result = frossl.pretrain(folder, method="vicreg", length="2it", **SMALL)
        assert str(result.run) == "runs/images-vicreg"
        return result.__class__(**vars(result) | {"run": result.run.resolve(), "report": result.report.resolve()})


def test_the_encoder_is_a_module_that_is_ready_for_use(result):
    assert isinstance(result.encoder, nn.Module)
    assert not result.encoder.training
    assert result.encoder(torch.zeros(2, 3, result.spec.size, result.spec.size)).shape == (2, result.spec.features)


def test_the_evaluation_is_a_table_and_a_mapping(result):
    assert set(result.evaluation) == {"pretrained", "untrained", "raw pixels", "largest class"}
    assert 0 <= result.evaluation["pretrained"]["knn"] <= 1
    with pytest.raises(KeyError):
        result.evaluation["supervised"]
    table = repr(result.evaluation)
    for arm, figures in result.evaluation.items():
        assert re.search(rf"^ *{arm} .*{figures['knn']:.3f}" if "knn" in figures else arm, table, re.MULTILINE)
    assert result.evaluation.verdict in " ".join(table.split())
    in_page = [said for said in judge(read_record(result.run), None).more if "To train on" in said]
    assert len(result.evaluation.advice) == len(in_page)
    told = EvaluationTable(result.evaluation.evaluation, ("Train on.",))
    assert told.verdict.endswith(" Train on.")
    assert "Train on." in told._repr_html_()


def test_a_notebook_shows_the_evaluation_as_html(result):
    html = result.evaluation._repr_html_()
    assert html.count("<tr>") == 1 + len(result.evaluation)
    assert f"<p><b>{result.evaluation.verdict}</b></p>" in html.replace("&#x27;", "'")


def test_the_report_and_the_run_are_paths(result):
    assert result.report == result.run / "report.html"
    assert result.report.stat().st_size > 100_000
    saved = json.loads((result.run / "config.json").read_text())["config"]
    assert (saved["method"], saved["objective"]["projector"]) == ("vicreg", "16-bn-relu-16")


def test_a_result_is_said_in_a_line(result):
    assert "\n" not in repr(result)
    assert "report.html" in repr(result)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lenght": "2it"}, "no option is called 'lenght'. Did you mean 'length'"),
        ({"method": "vicregg"}, "no method is called 'vicregg'. Did you mean 'vicreg'"),
        ({"method": "vicreg", "variance_wieght": 1.0}, "Did you mean 'variance_weight'"),
        ({"length": "soon"}, "'soon' is not a length"),
        ({"batch": "8"}, "batch must be int, got '8'"),
        ({"recipe": "papr-stl10-frossl"}, "Did you mean 'paper-stl10-frossl'"),
        ({"invariance_weight": "much"}, "invariance_weight must be float"),
    ],
)
def test_what_cannot_be_had_is_an_error_that_says_what_to_do(folder, tmp_path, options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        frossl.pretrain(folder, out=tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()


def test_data_are_asked_for():
    with pytest.raises(UserError, match="no data: give a folder"):
        frossl.pretrain(length="1it")


def test_tensors_and_a_module_are_trained_and_resumed(tmp_path):
    images = torch.randint(256, (40, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = from_tensors(Split(images))
    small = {"batch": 8, "projector": "8", "report": False, "evaluate": False, "out": tmp_path, "telemetry_every": 0}
    silent = {"console": Console(quiet=True)}

    def module():
        return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    first = frossl.pretrain(data, backbone=module(), length="1it", **small, **silent)
    assert (first.report, first.evaluation, first.stopped) == (None, None, None)
    said = StringIO()
    again = {"resume": first.run, "report": False, "console": Console(file=said, width=200)}
    second = frossl.pretrain(data, backbone=module(), length="4it", **again)
    assert second.run == first.run
    assert "going on from step 1" in said.getvalue()
    assert not torch.equal(first.encoder[0].weight, second.encoder[0].weight)


@pytest.mark.usefixtures("no_reports")
def test_a_notebook_gets_one_output_that_is_updated(folder, tmp_path, monkeypatch):
    shown, outputs = [], []

    def display(bundle, raw, display_id):
        assert raw
        assert display_id
        outputs.append(bundle)
        shown.append(bundle["text/plain"])
        return types.SimpleNamespace(update=lambda bundle, raw: shown.append(bundle["text/plain"]))

    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    frossl.pretrain(folder, length="6it", log_every=1, out=tmp_path, evaluate=False, **SMALL)
    assert len(outputs) == 1
    assert any("step 3/6" in text for text in shown)
    last = re.sub(r"\x1b\[[\d;]*m", "", shown[-1])
    assert "\x1b" not in last
    assert last.count("Train") == 1
    assert re.search(r"Train +step 6/6 .*100%", last)
    assert len(last.splitlines()) < 40
    assert "step 6/6" in (tmp_path / "images-frossl" / "log.txt").read_text()
