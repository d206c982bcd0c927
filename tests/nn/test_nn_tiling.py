"""Sizes at which real encoders of timm see the last pixel of an image."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from frossl.nn.backbones import build_backbone
from frossl.nn.tiling import Net, coverage, nearest_size

DEPTH = {"depth": 1}
STAGES = {"depths": [1, 1, 1, 1]}
HYBRID = "vit_tiny_r_s16_p8_224"  # patches of the features of a ResNet


def sees_last_pixel(name: str, size: int, options: dict) -> bool:
    """Whether the features change with the lower right pixel."""
    torch.manual_seed(0)
    model = build_backbone(name, size=size, options=options).eval().double()  # some begin with scales of 1e-6
    image = torch.randn(1, 3, size, size, dtype=torch.float64)
    changed = image.clone()
    changed[..., -1, -1] += 1
    with torch.no_grad():
        return not torch.allclose(model(image), model(changed), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "size", "down", "up", "patch"),
    [
        ("vit_tiny_patch16_224", DEPTH, 40, 32, 48, 16),
        ("vit_small_patch14_dinov2", DEPTH, 32, 28, 42, 14),
        ("vit_tiny_patch16_224", DEPTH | {"patch_size": [16, 12]}, 40, None, 48, 16),
        ("vit_tiny_patch16_224", DEPTH | {"patch_size": 10}, 42, 40, 50, 10),
        ("tnt_s_patch16_224", DEPTH, 40, 32, 48, 16),  # its patches are those of a feature map
        ("pit_ti_224", {}, 42, 40, 48, 8),  # its patches overlap
        ("swin_tiny_patch4_window7_224", STAGES, 42, 40, 44, 4),
        ("convnext_atto", STAGES, 42, 40, 44, 4),
        ("hiera_tiny_224", {"stages": [1, 1, 1, 1]}, 40, 32, 64, 0),
        (HYBRID, DEPTH, 40, 32, 64, 0),
        ("vit_base_mci_224", DEPTH, 40, 32, 48, 16),  # it embeds in three steps
    ],
)
def test_the_next_sizes_that_are_seen_in_full(name, options, size, down, up, patch):
    net = Net(name, 3, options)
    assert coverage(net, size) == (False, patch)
    assert nearest_size(net, size, up=False) == down
    assert nearest_size(net, size) == nearest_size(net, up) == up
    assert sees_last_pixel(name, up, options)
    if patch:
        assert not sees_last_pixel(name, size, options)


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("resnet18", {}, 41),
        ("mobilenetv3_small_050", {}, 37),
        ("pvt_v2_b0", STAGES, 42),
        ("swin_tiny_patch4_window7_224", STAGES, 40),  # timm pads its windows
        ("vit_tiny_patch16_224", DEPTH | {"dynamic_img_size": True, "dynamic_img_pad": True}, 40),
    ],
)
def test_sizes_that_are_seen_in_full_stay(name, options, size):
    assert nearest_size(Net(name, 3, options), size) == size
    assert sees_last_pixel(name, size, options)


def test_positions_that_are_not_in_the_table_are_found():
    assert [coverage(Net("mvitv2_tiny", 3, {}), size).complete for size in (40, 64)] == [False, True]


def test_a_size_that_the_options_give_is_the_one_that_is_taken():
    assert nearest_size(Net("vit_tiny_patch16_224", 3, DEPTH | {"img_size": 80}), 40) == 80


def test_trying_sizes_leaves_the_generator_of_torch_as_it_was():
    before = torch.get_rng_state()
    nearest_size(Net("swin_tiny_patch4_window7_224", 1, STAGES), 40)
    assert torch.equal(before, torch.get_rng_state())


class Embed(nn.Module):
    def __init__(self, patch_size, **about) -> None:
        super().__init__()
        self.patch_size = patch_size
        vars(self).update(about)


class Own(nn.Module):
    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        self.net = nn.ModuleDict(parts)


@pytest.mark.parametrize(
    ("module", "down", "up"),
    [
        (Own(patch_embed=Embed(16)), 32, 48),
        (Own(patch_embed=Embed((16, 12))), None, 48),
        (Own(patch_embed=Embed(16, dynamic_img_pad=True)), 40, 40),
        (Own(patch_embed=Embed(8)), 40, 40),
        (Own(stem=nn.Conv2d(3, 8, 16, 16)), 40, 40),
    ],
    ids=["patches", "patches that are not square", "padded", "tiles", "unknown"],
)
def test_of_a_module_only_the_patches_of_its_patch_embed_are_known(module, down, up):
    net = Net(module, 3, {})
    assert (nearest_size(net, 40, up=False), nearest_size(net, 40)) == (down, up)
