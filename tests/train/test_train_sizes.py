"""Sizes of views and images are those that the encoder sees in full, from the plan to the exported encoder."""

from __future__ import annotations

import dataclasses
import json
from io import StringIO

import pytest
import timm
import torch
from rich.console import Console
from test_train_loop import config, folder_of_images
from torch import nn

from frossl.core.types import UserError
from frossl.data import Dataset, from_tensors
from frossl.data.types import Split
from frossl.nn.encoder import load_encoder
from frossl.runs.config import Config
from frossl.runs.directory import read_run
from frossl.runs.export import export_encoder
from frossl.train.evaluate import evaluate_run
from frossl.train.plan import Plan, make_plan
from frossl.train.pretrain import pretrain

pytestmark = pytest.mark.usefixtures("no_reports")

VIT = {"backbone": "vit_tiny_patch16_224", "backbone_options": '{"depth": 1, "embed_dim": 24, "num_heads": 2}'}


def blank(side: int) -> Dataset:
    return from_tensors(Split(torch.zeros(16, 3, side, side, dtype=torch.uint8)))


def planned(side: int, own: nn.Module | None = None, **changes) -> Plan:
    """The plan for images of ``side`` pixels."""
    return make_plan(Config(data="blank", device="cpu", **changes), blank(side), own)


def sizes(plan: Plan) -> list[int]:
    return [group.size for group in plan.recipe]


@pytest.mark.parametrize(
    ("backbone", "options", "side", "views", "evaluated"),
    [
        ("vit_tiny_patch16_224", '{"depth": 1}', 40, 48, 48),
        ("vit_small_patch14_dinov2", '{"depth": 1}', 32, 42, 42),
        ("hiera_tiny_224", '{"stages": [1, 1, 1, 1]}', 40, 64, 64),
        ("vit_tiny_patch16_224", '{"depth": 1}', 32, 32, 32),
        ("resnet18", "{}", 41, 41, 41),
    ],
)
def test_views_are_made_at_the_next_size_that_is_seen_in_full(backbone, options, side, views, evaluated):
    plan = planned(side, backbone=backbone, backbone_options=options)
    assert (sizes(plan), plan.config.size, plan.spec.size) == ([views], views, evaluated)
    assert plan.resized == "" if views == side else all(f" {x}" in plan.resized for x in (side, views))


def test_larger_images_are_evaluated_at_a_size_that_is_seen_in_full():
    plan = planned(42, backbone="convnext_atto", backbone_options='{"depths": [1, 1, 1, 1]}', size=32)
    assert (sizes(plan), plan.spec.size) == ([32], 44)


def test_a_size_that_was_asked_for_is_refused_with_its_neighbours():
    with pytest.raises(UserError, match=r"40 pixels.*patches of 16.*--size 32 or 48"):
        planned(64, **VIT, size=40)
    with pytest.raises(UserError, match=r"does not take.*--size 32 or 64"):
        planned(64, backbone="hiera_tiny_224", backbone_options='{"stages": [1, 1, 1, 1]}', size=40)
    assert sizes(planned(64, **VIT, size=48)) == [48]


def test_views_do_not_become_more_than_twice_as_large_unasked():
    with pytest.raises(UserError, match=r"patches of 16.*--size 16"):
        planned(7, **VIT)


def test_stored_images_that_are_too_small_are_told_a_size_that_is_seen_in_full():
    with pytest.raises(UserError, match=r"--cache 48 .*--size 32"):
        planned(40, **VIT, cache=40)


def test_local_crops_of_a_vision_transformer_are_seen_in_full_too():
    plan = planned(40, **VIT, view_recipe="multicrop")
    assert sizes(plan) == [48, 32]
    assert plan.spec.options["dynamic_img_size"]
    encoder = plan.spec.build().eval()
    assert {encoder(torch.zeros(1, 3, size, size)).shape for size in sizes(plan)} == {(1, 24)}
    again = make_plan(plan.config, blank(40))
    assert (again.recipe, again.spec) == (plan.recipe, plan.spec)


@pytest.mark.parametrize(("backbone", "side"), [("vit_tiny_patch16_224", 16), ("beit_base_patch16_224", 64)])
def test_local_crops_that_an_encoder_does_not_take_below_the_large_ones_are_refused(backbone, side):
    with pytest.raises(UserError, match=f"{backbone}.*'multicrop'"):
        planned(side, backbone=backbone, backbone_options='{"depth": 1}', view_recipe="multicrop")


class Own(nn.Module):
    def __init__(self, **options) -> None:
        super().__init__()
        made = {"num_classes": 0, "depth": 1, "embed_dim": 24, "num_heads": 2}
        self.net = timm.create_model("vit_tiny_patch16_224", **made, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def test_patches_of_a_module_of_ones_own_tile_the_views():
    plan = planned(40, Own(img_size=48))
    assert (sizes(plan), plan.spec.size, plan.config.size) == ([48], 48, 48)
    with pytest.raises(UserError, match=r"Own .*patches of 16.*--size 32 or 48"):
        planned(40, Own(img_size=48), size=40)


@pytest.mark.parametrize("recipe", ["natural", "multicrop"])
def test_a_run_is_told_saved_resumed_evaluated_and_exported_at_that_size(tmp_path, recipe):
    images = folder_of_images(tmp_path / "images", count=24, sizes=((40, 40),))
    asked = config(images, tmp_path, name="r", length="2it", checkpoint_every="1it", view_recipe=recipe, **VIT)
    said = StringIO()
    run = pretrain(asked, console=Console(file=said, width=300)).run
    assert "views of 40 pixels are made at 48" in said.getvalue()
    assert "patches of 16" in said.getvalue()
    saved = json.loads((run / "config.json").read_text())
    assert (saved["config"]["size"], saved["views"][0]["size"], saved["encoder"]["size"]) == (48, 48, 48)
    assert pretrain(read_run(run)[0], resume=run).stopped is None
    assert evaluate_run(run, protocols=("rank",)).arms["pretrained"]["effective_rank"] > 0
    assert "img_size=48" in export_encoder(run, tmp_path / "e.safetensors")
    encoder, spec = load_encoder(tmp_path / "e.safetensors")
    image = torch.zeros(2, 3, spec.size, spec.size)
    image[1, :, -1, -1] = 1
    with torch.no_grad():
        one, other = encoder(image)
    assert not torch.equal(one, other)
    with pytest.raises(UserError, match="--size"):
        pretrain(dataclasses.replace(asked, size=64), resume=run)
