from __future__ import annotations

from functools import partial

import pytest
import timm
import torch
from torch import nn

from frossl.nn.alike import alike, timm_name
from frossl.nn.backbones import build_backbone

OPTIONS = {"channels": (8, 8, 8, 8), "layers": (1, 1, 1, 1)}


def net(**options) -> nn.Module:
    return timm.create_model("resnet18", num_classes=0, **OPTIONS, **options)


def same(one: nn.Module, stem: str = "imagenet") -> bool:
    return alike(one, build_backbone("resnet18", stem=stem, size=16, options=OPTIONS), 3, (16, 24))


def test_the_name_of_an_encoder_of_timm():
    assert timm_name(net()) == "resnet18"
    assert timm_name(nn.Linear(2, 2)) is None


def test_modules_that_differ_in_weights_alone_are_alike():
    mine = net().eval()
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    assert same(mine)
    other, random = net(), torch.get_rng_state()
    assert alike(mine, other, 3, (16,))
    assert torch.equal(torch.get_rng_state(), random)
    assert not mine.training
    assert all(torch.equal(value, before[name]) for name, value in mine.state_dict().items())


def test_stems_of_the_same_shapes_are_told_apart():
    mine = build_backbone("resnet18", stem="small", size=16, options=OPTIONS)
    assert same(mine, "small")
    assert not same(mine, "cifar")


def part_in_eval_mode(model: nn.Module) -> nn.Module:
    model.layer1.eval()
    return model


def part_frozen(model: nn.Module) -> nn.Module:
    model.conv1.requires_grad_(False)
    return model


def other_momentum(model: nn.Module) -> nn.Module:
    model.layer1[0].bn2.momentum = 0.3
    return model


def other_layer(model: nn.Module) -> nn.Module:
    model.layer2[0].act2 = nn.LeakyReLU()
    return model


class Negative(timm.models.ResNet):
    def forward(self, x):
        return -super().forward(x)


def other_class(model: nn.Module) -> nn.Module:
    model.__class__ = Negative
    return model


OTHERS = {
    "dropped features": lambda: net(drop_rate=0.5),
    "dropped paths": lambda: net(drop_path_rate=0.5),
    "pooling": lambda: net(global_pool="max"),
    "epsilon": lambda: net(norm_layer=partial(nn.BatchNorm2d, eps=1e-2)),
    "head": lambda: timm.create_model("resnet18", num_classes=3, **OPTIONS),
    "channels": lambda: timm.create_model("resnet18", num_classes=0, in_chans=4, **OPTIONS),
    "float64": lambda: net().double(),
    **{f.__name__: partial(lambda f: f(net()), f) for f in (part_in_eval_mode, part_frozen, other_momentum)},
    **{f.__name__: partial(lambda f: f(net()), f) for f in (other_layer, other_class)},
}


@pytest.mark.parametrize("what", OTHERS)
def test_modules_that_would_train_in_another_way_are_not_alike(what):
    assert not same(OTHERS[what]())


def test_an_activation_within_a_residual_branch_that_begins_at_zero_is_seen():
    mine = net()
    assert not mine.layer2[0].bn2.weight.any()
    mine.layer2[0].act1.register_forward_hook(lambda module, inputs, output: 2 * output + 1)
    assert not same(mine)
