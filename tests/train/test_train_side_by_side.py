"""Any encoders on the same images, without training."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from rich.console import Console

from frossl.commands import evaluate
from frossl.core.types import UserError
from frossl.nn.encoder import EncoderSpec, save_encoder
from frossl.runs.config import Config
from frossl.train.side_by_side import evaluate_encoders

TINY = {"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}


@pytest.fixture
def place(tmp_path):
    """Pictures whose class is their brightness, and two encoders of other sizes and normalisations."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    images = np.clip(rng.normal(90 + 60 * labels[:, None, None, None], 20, (120, 16, 16, 3)), 0, 255).astype(np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet18", **TINY).state_dict(), tmp_path / "w.pt")
    spec = EncoderSpec(
        backbone="resnet18",
        channels=3,
        size=16,
        stem="small",
        features=8,
        mean=(0.4,) * 3,
        std=(0.2,) * 3,
        options=TINY,
    )
    save_encoder(tmp_path / "e.safetensors", spec.build(), spec)
    return tmp_path


def test_each_encoder_is_fed_as_it_was_published_beside_its_own_control(place):
    named = {"vit": "vit_tiny_patch16_224", "deep": {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}}
    vit = EncoderSpec(
        backbone=named["vit"], channels=3, size=32, stem="imagenet", features=16, mean=(0.5,) * 3, std=(0.5,) * 3,
        options=named["deep"],
    )  # fmt: skip
    save_encoder(place / "v.safetensors", vit.build(), vit)
    config = Config(data=str(place / "set.npz"), held_out=0.5)
    both = [str(place / "e.safetensors"), str(place / "v.safetensors")]
    found = evaluate_encoders(config, both, protocols=("knn", "rank"))
    assert {name: spec.size for name, spec in found.specs.items()} == {"e.safetensors": 16, "v.safetensors": 32}
    controls = set(found.untrained.values())
    assert len(controls) == 2
    assert {*found.specs, *controls, "raw pixels", "largest class"} == set(found.evaluation.arms)
    alone = evaluate_encoders(config, both[:1], protocols=("knn", "rank"))
    assert alone.evaluation.arms["e.safetensors"] == found.evaluation.arms["e.safetensors"]
    assert alone.untrained == {"e.safetensors": "untrained"}


def test_the_command_writes_one_report(place, capsys):
    encoders = ["--encoder", str(place / "e.safetensors"), str(place / "w.pt"), "--backbone", "resnet18"]
    args = [str(place / "set.npz"), *encoders, "--size", "32", "--protocol", "knn", "--out", str(place / "out")]
    with pytest.raises(UserError, match="keys"):  # the net of the file is narrower than resnet18
        evaluate.run(args, Console(quiet=True))
    torch.save(timm.create_model("resnet10t").state_dict(), place / "w.pt")
    args[args.index("resnet18")] = "resnet10t"
    assert evaluate.run(args, Console(quiet=True)) == 0
    (out,) = (place / "out").iterdir()
    saved = json.loads((out / "evaluation.json").read_text())
    assert set(saved["specs"]) == {"e.safetensors", "w.pt"}
    page = (out / "report.html").read_text()
    assert "w.pt" in page
    assert str(place) not in page


@pytest.mark.parametrize("wrong", [["--arms", "supervised"], ["--weights", "averaged"], ["--data", "x"]])
def test_options_of_runs_are_refused_side_by_side(place, wrong, capsys):
    args = [str(place / "set.npz"), "--encoder", str(place / "e.safetensors"), *wrong]
    with pytest.raises(SystemExit) as stop:
        evaluate.run(args, Console(quiet=True))
    assert stop.value.code == 2
    assert wrong[0] in capsys.readouterr().err


@pytest.mark.parametrize("encoders", [["nowhere.pt"], ["e.safetensors", "./e.safetensors"]])
def test_encoders_that_are_not_there_or_given_twice_are_said(place, monkeypatch, encoders):
    monkeypatch.chdir(place)
    with pytest.raises(UserError):
        evaluate.run(["set.npz", "--encoder", *encoders], Console(quiet=True))
