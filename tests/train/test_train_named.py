"""Modules of timm that came from Python and are built by name elsewhere."""

from __future__ import annotations

import dataclasses
import json

import pytest
import timm
import torch
from test_train_loop import TINY, Killed, config, folder_of_images, kill_at, losses, same_weights
from torch import nn

from frossl.core.types import UserError
from frossl.methods.random import Random
from frossl.nn.backbones import build_backbone
from frossl.nn.encoder import load_encoder, read_encoder
from frossl.runs.directory import read_run
from frossl.runs.export import export_encoder
from frossl.train.evaluate import evaluate_run
from frossl.train.pretrain import pretrain
from frossl.train.supervised import supervised_encoder

OPTIONS = {key: tuple(value) for key, value in json.loads(TINY).items()}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return folder_of_images(tmp_path_factory.mktemp("images"))


def resnet(seed: int = 5) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model("resnet18", num_classes=0, zero_init_last=False, **OPTIONS)


def encoder_in(run) -> dict:
    return json.loads((run / "config.json").read_text())["encoder"]


def test_a_run_of_a_module_of_timm_goes_on_without_it(images, tmp_path, monkeypatch):
    asked = config(images, tmp_path, size=64, length="4it", checkpoint_every="1it", evaluate=True)
    whole = pretrain(dataclasses.replace(asked, name="whole"), backbone=resnet())
    asked = dataclasses.replace(asked, name="killed")
    with monkeypatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(Killed):
            pretrain(asked, backbone=resnet())
    run = tmp_path / "killed"
    saved, _ = read_run(run)
    assert (saved.backbone, saved.stem) == ("resnet18", "imagenet")
    pretrain(dataclasses.replace(saved, evaluate=False), resume=run)
    assert losses(run) == losses(whole.run)
    assert same_weights(run, whole.run)
    again = evaluate_run(run, protocols=("rank",)).arms
    there = evaluate_run(run, backbone=resnet(), protocols=("rank",)).arms
    assert again["pretrained"] == there["pretrained"]
    assert again["untrained"] != there["untrained"]  # random weights of the seed, and those that it began with
    assert "create_model('resnet18'" in export_encoder(run, tmp_path / "e.safetensors")
    assert supervised_encoder(run).state_dict().keys() == resnet().state_dict().keys()


def test_the_same_call_with_a_module_of_timm_goes_on_with_its_run(images, tmp_path):
    asked = config(images, tmp_path, name="r", size=64, length="1it", backbone="resnet34")
    for _ in range(2):
        run = pretrain(asked, backbone=resnet(), resume="auto").run
    assert encoder_in(run)["backbone"] == "resnet18"
    with pytest.raises(UserError, match="of the encoder"):
        pretrain(asked, backbone=build_backbone("resnet18", stem="cifar", options=OPTIONS), resume="auto")


def test_a_module_of_timm_keeps_the_weights_it_came_with(images, tmp_path):
    asked = config(images, tmp_path, name="r", method="random", objective=Random.Config())
    run = pretrain(asked, backbone=resnet()).run
    assert encoder_in(run)["backbone"] == "resnet18"
    assert torch.equal(read_encoder(run / "encoder.safetensors")[0]["conv1.weight"], resnet().conv1.weight)


@pytest.mark.parametrize(
    ("make", "options", "found"),
    [
        (lambda: timm.create_model("resnet18", num_classes=0), "{}", ("resnet18", "imagenet", {})),
        (lambda: timm.create_model("resnet18", num_classes=0), TINY, ("resnet18", "imagenet", {})),
        (lambda: build_backbone("resnet18", stem="cifar"), "{}", ("resnet18", "cifar", {})),
        (
            lambda: timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=1),
            '{"depth": 1}',
            ("vit_tiny_patch16_224", "imagenet", {"depth": 1}),
        ),
    ],
)
def test_stem_and_options_of_a_module_of_timm_are_found(images, tmp_path, make, options, found):
    asked = config(images, tmp_path, name="r", length="1it", size=32, backbone="resnet34", backbone_options=options)
    run = pretrain(asked, backbone=make()).run
    encoder = encoder_in(run)
    assert (encoder["backbone"], encoder["stem"], encoder["options"]) == found
    load_encoder(run / "encoder.safetensors")


def test_what_timm_builds_in_another_way_stays_a_module_of_ones_own(images, tmp_path):
    def mine() -> nn.Module:
        return timm.create_model("resnet18", num_classes=0, zero_init_last=False, drop_path_rate=0.1, **OPTIONS)

    asked = config(images, tmp_path, name="r", size=64, length="1it")
    run = pretrain(asked, backbone=mine()).run
    assert encoder_in(run)["backbone"] == "own:ResNet"
    with pytest.raises(UserError, match="own, ResNet"):
        pretrain(read_run(run)[0], resume=run)
