"""Whole runs on labels that are values or several an image: nothing crashes, and what is left out is said."""

from __future__ import annotations

import dataclasses
import json
from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console

from frossl.core.types import UserError
from frossl.data import open_data
from frossl.methods import METHODS
from frossl.report.page import write_report
from frossl.runs.config import Config
from frossl.train.evaluate import evaluate_run
from frossl.train.pretrain import pretrain
from frossl.train.supervised import supervised_encoder


def brightness(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures, and how bright each is: 20 to 80."""
    generator = np.random.default_rng(0)
    age = generator.integers(20, 81, count)
    return (generator.integers(100, 256, (count, 12, 12)) * (age / 80)[:, None, None]).astype(np.uint8), age


def config(tmp_path, **arrays: np.ndarray) -> Config:
    np.savez(tmp_path / "set.npz", **arrays)
    return Config(
        data=str(tmp_path / "set.npz"),
        out=tmp_path,
        name="run",
        objective=METHODS["frossl"].Config(projector="8-bn-relu-8"),
        backbone_options='{"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}',
        batch=50,
        size=12,
        views=2,
        length="4it",
        log_every=1,
        monitor_every="50%",
        held_out=0.2,
        workers=0,
        data_dir=tmp_path / "data",
    )


@pytest.fixture(scope="module")
def of_ages(tmp_path_factory):
    """A run on pictures with ages as whole numbers, and what the terminal said."""
    place = tmp_path_factory.mktemp("ages")
    images, age = brightness(300)
    console = Console(file=StringIO(), width=200)
    return pretrain(config(place, images=images, labels=age), console=console).run, console.file.getvalue()


def test_ages_are_no_classes_and_are_judged_by_r2(of_ages):
    run, said = of_ages
    assert "values from 20 to 80" in said
    assert "classes (" not in said
    (found,) = json.loads((run / "evaluation.json").read_text()).values()
    assert found["targets"] == "values"
    assert list(found["arms"]) == ["pretrained", "untrained", "raw pixels", "training mean"]
    assert all({"r2", "mae"} <= values.keys() for values in found["arms"].values())
    assert not any("knn" in values or "linear" in values for values in found["arms"].values())
    assert "R² " in said
    assert "against the better control" in said


def test_the_report_shows_r2_beside_the_controls_and_the_values_of_pictures(of_ages):
    run, _ = of_ages
    page = write_report([run], run / "again.html").read_text()
    page = page[page.index("<main") :]
    assert "R² of a ridge regression" in page
    assert "training mean" in page
    assert "mean absolute error" in page
    assert "Commonest mistakes" not in page


def test_a_supervised_arm_of_values_is_refused_in_words(of_ages):
    with pytest.raises(UserError, match=r"learns from labels.*values.*needs classes"):
        supervised_encoder(of_ages[0])


def test_the_other_reading_of_numbers_replaces_the_evaluation(of_ages):
    run, _ = of_ages
    kept = (run / "evaluation.json").read_text()
    got = evaluate_run(run, targets="classes", protocols=("knn",))
    assert got.targets == "classes"
    (found,) = json.loads((run / "evaluation.json").read_text()).values()
    assert not any("r2" in values for values in found["arms"].values())
    (run / "evaluation.json").write_text(kept)


def test_floats_are_values_whatever_their_type(tmp_path):
    images, age = brightness(60)
    arrays = {"images": images, "labels": (age + 0.5).astype(np.float32)}
    ran = config(tmp_path, **arrays)
    assert open_data(ran.data, ran).targets == "values"
    got = evaluate_run(pretrain(dataclasses.replace(ran, batch=20, evaluate=False)).run, protocols=("regression",))
    assert got.arms["raw pixels"]["r2"] > got.arms["training mean"]["r2"]
    assert torch.isfinite(torch.tensor(list(got.arms["pretrained"].values()))).all()


def test_a_run_on_several_labels_an_image_is_judged_by_mean_average_precision(tmp_path):
    images, age = brightness(120)
    several = np.stack([age > 40, age > 60, age % 2 == 0], axis=1)
    console = Console(file=StringIO(), width=200)
    ran = pretrain(config(tmp_path, images=images, labels=several), console=console)
    (found,) = json.loads((ran.run / "evaluation.json").read_text()).values()
    assert list(found["arms"]) == ["pretrained", "untrained", "raw pixels", "label shares"]
    assert all("map" in values for values in found["arms"].values())
    said = console.file.getvalue()
    assert "3 labels, several an image" in said
    page = (ran.run / "report.html").read_text()
    assert "mean average precision of labels" in page[page.index("<main") :]
