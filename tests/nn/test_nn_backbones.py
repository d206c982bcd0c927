from __future__ import annotations

import pytest
import torch
from torch import nn

from frossl.core.types import UserError
from frossl.nn.backbones import build_backbone, resolve_stem
from frossl.nn.output import feature_width


def stem_of(model: nn.Module) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool]:
    conv = model.conv1
    return conv.kernel_size, conv.stride, conv.padding, isinstance(model.maxpool, nn.Identity)


STEMS = {
    "imagenet": ((7, 7), (2, 2), (3, 3), False),
    "small": ((3, 3), (2, 2), (1, 1), True),
    "cifar": ((3, 3), (1, 1), (2, 2), True),
}


@pytest.mark.parametrize(
    ("stem", "size", "maps", "last"),
    [("imagenet", 96, 24, 3), ("small", 32, 16, 2), ("cifar", 32, 34, 5), ("small", 96, 48, 6)],
)
def test_stems_of_a_resnet_and_the_maps_they_give(stem, size, maps, last):
    model = build_backbone("resnet18", stem=stem, size=size).eval()
    assert stem_of(model) == STEMS[stem]
    assert model.conv1.bias is None
    x = torch.zeros(1, 3, size, size)
    with torch.no_grad():
        assert model.maxpool(model.conv1(x)).shape == (1, 64, maps, maps)
        assert model.forward_features(x).shape == (1, 512, last, last)
        assert model(x).shape == (1, 512)


@pytest.mark.parametrize(
    ("size", "stem"),
    [(28, "small"), (32, "small"), (48, "small"), (49, "imagenet"), (64, "imagenet"), (224, "imagenet")],
)
def test_auto_takes_the_small_stem_below_the_sizes_at_which_the_paper_keeps_the_large_one(size, stem):
    assert resolve_stem("resnet18", "auto", size) == stem
    assert stem_of(build_backbone("resnet18", stem="auto", size=size)) == STEMS[stem]


@pytest.mark.parametrize("stem", STEMS)
def test_a_stem_that_is_named_is_taken_at_any_size(stem):
    assert [resolve_stem("resnet18", stem, size) for size in (32, 224)] == [stem, stem]


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels(channels, stem):
    model = build_backbone("resnet18", channels=channels, stem=stem, size=32)
    assert model.conv1.in_channels == channels
    assert feature_width(model, channels, 32) == 512


def test_a_replaced_stem_has_the_scale_of_kaiming_fan_out():
    torch.manual_seed(0)
    model = build_backbone("resnet18", stem="cifar")
    assert float(model.conv1.weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)


def test_weights_are_random_and_follow_the_seed():
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in build_backbone("resnet18", size=32).parameters()])

    first = weights(0)
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))


@pytest.mark.parametrize("stem", ["auto", "imagenet"])
def test_a_vision_transformer_works_by_name_at_its_own_size(stem):
    model = build_backbone("vit_tiny_patch16_224", stem=stem, size=224, options={"depth": 1})
    assert feature_width(model, 3, 224) == 192


def test_a_vision_transformer_takes_the_size_it_is_given():
    """``size`` is documented as serving encoders that need to know it."""
    model = build_backbone("vit_tiny_patch16_224", size=32, options={"depth": 1})
    assert feature_width(model, 3, 32) == 192


@pytest.mark.parametrize("stem", ["small", "cifar"])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18d"])
def test_an_impossible_stem_is_refused(name, stem):
    for refuse in (lambda: build_backbone(name, stem=stem), lambda: resolve_stem(name, stem, 32)):
        with pytest.raises(UserError, match=f"'{name}'.*--stem imagenet"):
            refuse()


def test_auto_leaves_a_net_without_such_a_stem_alone():
    model = build_backbone("resnet18d", stem="auto", size=32)
    assert isinstance(model.conv1, nn.Sequential)
    assert feature_width(model, 3, 32) == 512


@pytest.mark.parametrize(
    ("name", "says"), [("resnet-18", "Did you mean.*'resnet18'"), ("rasnet50", "Did you mean 'resnet50'")]
)
def test_an_unknown_encoder_suggests_a_known_one(name, says):
    with pytest.raises(UserError, match=f"timm model.*'{name}'.*{says}"):
        build_backbone(name)


def test_an_unknown_encoder_is_told_in_a_message_one_can_read():
    with pytest.raises(UserError) as caught:
        build_backbone("rasnet50")
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("tag", ["a1_in1k", "no_such_tag"])
def test_the_name_of_pretrained_weights_is_refused_as_weights_are_random(tag):
    for refuse in (lambda: build_backbone(f"resnet18.{tag}"), lambda: resolve_stem(f"resnet18.{tag}", "auto", 32)):
        with pytest.raises(UserError, match=rf"\.{tag} names.*'resnet18'$"):
            refuse()


def test_an_unknown_stem_suggests_a_known_one():
    with pytest.raises(UserError, match=r"stem.*'cifer'.*'cifar'"):
        build_backbone("resnet18", stem="cifer")


def test_an_unknown_option_is_named():
    with pytest.raises(UserError, match=r"'resnet18'.*\{'colour': 3\}.*colour"):
        build_backbone("resnet18", options={"colour": 3})


def test_options_reach_timm():
    model = build_backbone("resnet18", channels=1, size=32, options={"channels": (8, 16, 24, 40)})
    assert feature_width(model, 1, 32) == 40
    assert stem_of(model) == STEMS["small"]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_residual_branches_do_not_start_at_zero(name):
    norms = [m for m in build_backbone(name).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(bool((m.weight == 1).all()) for m in norms)
