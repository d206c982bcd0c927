"""Tiny runs, once for all tests of the report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tiny_runs import HOSTILE, config, folder

from frossl.nn.encoder import load_encoder, save_encoder
from frossl.train.evaluate import evaluate_run
from frossl.train.pretrain import pretrain


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="session")
def labelled(place) -> Path:
    return pretrain(config(folder(place / "labelled-images"), place, name="labelled")).run


@pytest.fixture(scope="session")
def unlabelled(place) -> Path:
    return pretrain(config(folder(place / "flat-images", classes=()), place, name="unlabelled")).run


@pytest.fixture(scope="session")
def hostile(place) -> Path:
    return pretrain(config(folder(place / "<b>images", classes=HOSTILE), place, name="<i>hostile")).run


@pytest.fixture(scope="session")
def collapsed(place, labelled) -> Path:
    """The labelled run with an encoder that gives the same features for every image."""
    run = place / "collapsed"
    shutil.copytree(labelled, run)
    encoder, spec = load_encoder(run / "encoder.safetensors")
    for parameter in encoder.parameters():
        torch.nn.init.zeros_(parameter)
    save_encoder(run / "encoder.safetensors", encoder, spec)
    (run / "evaluation.json").unlink()
    evaluate_run(run, protocols=("knn", "rank"))
    return run
