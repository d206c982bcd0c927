"""The card of a published encoder: it says what is measured, its Python runs, and it tells nothing of places here."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from tiny_runs import config, folder

from frossl.core.types import UserError
from frossl.evals.verdict import verdict
from frossl.nn.encoder import load_encoder, save_encoder
from frossl.report.card import model_card
from frossl.report.table import minus
from frossl.runs.publish import publish_encoder
from frossl.runs.record import read_record
from frossl.train.evaluate import evaluate_run
from frossl.train.pretrain import pretrain

SECRET = "Xq7planted"


def publish(run: Path, to: Path, **options) -> str:
    publish_encoder(run, str(to), model_card, **options)
    return (to / "README.md").read_text()


def of(run: Path, tmp_path: Path, **entries) -> Path:
    """A copy of a run whose configuration has other ``entries``."""
    here = tmp_path / "run"
    shutil.copytree(run, here)
    about = json.loads((here / "config.json").read_text())
    about["config"] |= entries
    (here / "config.json").write_text(json.dumps(about))
    return here


def train(images: Path, place: Path, **changes) -> Path:
    """A run of an epoch without evaluation and report, which take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("frossl.train.pretrain.write_report", lambda runs, output, **_: output)
        return pretrain(config(images, place, length="1ep", evaluate=False, **changes)).run


def respecified(run: Path, **changes) -> None:
    encoder, spec = load_encoder(run / "encoder.safetensors")
    for name, value in changes.items():
        object.__setattr__(spec, name, value)
    save_encoder(run / "encoder.safetensors", encoder, spec)


def test_a_card_has_verdict_every_arm_and_protocol_and_how_it_was_made(labelled, tmp_path):
    text = publish(labelled, tmp_path / "out", licence="Apache-2.0")
    record = read_record(labelled)
    assert record.evaluation is not None
    assert minus(verdict(record.evaluation)) in text
    for arm, values in record.evaluation.arms.items():
        assert re.search(rf"^\| {arm} \| .*{values['knn']:.3f}", text, re.MULTILINE)
    assert all(protocol in text for protocol in record.evaluation.protocols.values())
    for said in ("36 of own images", "random weights", "16-bn-relu-16", "8 steps", f"torch {torch.__version__}"):
        assert said in text
    about = ModelCard(text).data
    assert (about.license, about.base_model) == ("apache-2.0", None)
    assert "image-feature-extraction" in (about.tags or [])


def test_the_python_of_a_card_makes_features(labelled, tmp_path, monkeypatch):
    text = publish(labelled, tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    encoder, spec = load_encoder(labelled / "encoder.safetensors")
    images = torch.rand(2, spec.channels, spec.size, spec.size)
    names: dict = {"images": images}
    with torch.no_grad():
        for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(code, names)
        mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
        wanted = encoder((images - mean) / std)
    assert torch.allclose(names["features"], wanted, atol=1e-4)


def test_a_card_names_weights_that_training_started_from_and_their_licence(labelled, tmp_path):
    here = of(labelled, tmp_path, data="fashion-mnist")
    respecified(here, origin="hf-hub:org/name", licence="CC BY-NC 4.0")
    text = publish(here, tmp_path / "out")
    about = ModelCard(text).data
    assert (about.base_model, about.license, about.to_dict()["license_name"]) == ("org/name", "other", "CC BY-NC 4.0")
    assert "hf-hub:org/name, under the licence CC BY-NC 4.0" in text
    assert "36 of fashion-mnist (10 classes; licence: MIT)" in text


def test_a_card_of_a_run_that_was_not_evaluated_or_not_on_its_own_data_says_so(labelled, tmp_path):
    here = of(labelled, tmp_path)
    kept = json.loads((here / "evaluation.json").read_text())
    for saved in ({}, {"other": next(iter(kept.values())) | {"source": "fashion-mnist"}}):
        (here / "evaluation.json").write_text(json.dumps(saved))
        text = publish(here, tmp_path / "out")
        assert "It was not evaluated" in text
        assert "| pretrained" not in text


def test_a_card_of_a_run_that_was_stopped_says_so(labelled, tmp_path):
    here = of(labelled, tmp_path, length="4ep")
    assert "stopped before its end**, at step 8 of 16." in publish(here, tmp_path / "out")


def test_the_verdict_is_of_the_weights_that_are_published(place, tmp_path):
    run = train(folder(place / "averaged-images"), place, method="byol", objective=None, name="averaged")
    evaluate_run(run, protocols=("knn",))
    assert "were not evaluated" in publish(run, tmp_path / "before", weights="averaged")
    path = run / "evaluation.json"
    ((name, saved),) = json.loads(path.read_text()).items()
    saved["arms"] |= {"averaged": {"knn": 1.0}, "pretrained": {"knn": 0.0}}
    path.write_text(json.dumps({name: saved}))
    verdicts = [re.search(r"kNN (.)\d", publish(run, tmp_path / w, weights=w)) for w in ("averaged", "online")]
    assert [found and found[1] for found in verdicts] == ["+", "−"]


@pytest.fixture(scope="module")
def secretive(tmp_path_factory) -> Path:
    """A run with a secret in the path of its data, its folders of classes and files, and every place and name."""
    place = tmp_path_factory.mktemp(SECRET)
    images = folder(place / f"{SECRET}-images", classes=(f"{SECRET}-a", f"{SECRET}-b"))
    for path in images.rglob("*.png"):
        path.rename(path.with_name(f"{SECRET}{path.name}"))
    run = train(images, place, name=f"{SECRET}-run", data_dir=place / SECRET)
    evaluate_run(run, protocols=("knn",))
    return run


@pytest.mark.parametrize("stem", ["small", "imagenet"])
def test_no_byte_of_what_is_published_tells_of_places_and_names(secretive, tmp_path, stem):
    here = of(secretive, tmp_path, method=f"{SECRET}:loss", objective={"weight": 0.5, "file": f"{SECRET}.txt"})
    respecified(here, origin=f"{SECRET}/weights.pth")
    if stem == "imagenet":
        _, spec = load_encoder(here / "encoder.safetensors")
        object.__setattr__(spec, "stem", stem)
        save_encoder(here / "encoder.safetensors", spec.build(), spec)
    evaluations = json.loads((here / "evaluation.json").read_text())
    assert any(SECRET in key and SECRET in evaluation["source"] for key, evaluation in evaluations.items())
    text = publish(here, tmp_path / SECRET / f"{SECRET}-out")
    assert "own images" in text
    assert "weight 0.5" in text
    assert "| pretrained" in text
    files = list((tmp_path / SECRET / f"{SECRET}-out").iterdir())
    assert len(files) == 3 + (stem == "imagenet")
    for path in files:
        assert SECRET.lower().encode() not in path.read_bytes().lower()


def test_what_went_wrong_leaves_nothing(labelled, tmp_path):
    def broken(published):
        raise UserError("no card")

    with pytest.raises(UserError, match="no card"):
        publish_encoder(labelled, str(tmp_path / "out"), broken)
    assert not list(tmp_path.iterdir())
