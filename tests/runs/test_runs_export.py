"""Encoders for timm and torchvision: the lines that are printed load them there."""

from __future__ import annotations

import pytest
import torch

from frossl.core.types import UserError
from frossl.nn.encoder import load_encoder
from frossl.runs.export import export_encoder


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("resnet18", {}),
        ("resnet18", {"channels": 4, "stem": "cifar", "size": 16}),
        ("resnet50", {}),
        ("resnext50_32x4d", {"channels": 1}),
        ("wide_resnet50_2", {"stem": "small", "size": 32}),
        ("densenet121", {}),
    ],
)
def test_nets_that_torchvision_builds_alike_load_there(run, name, changes):
    here = run(name, **changes)
    text = export_encoder(here, here / "out.safetensors", "torchvision")
    names: dict = {}
    exec(text, names)  # what a user would paste
    encoder, spec = load_encoder(here / "encoder.safetensors")
    x = torch.randn(2, spec.channels, spec.size, spec.size)
    with torch.no_grad():
        torch.testing.assert_close(names["model"].eval()(x), encoder(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("mobilenetv3_small_050", {}, "no mobilenetv3_small_050"),
        (
            "efficientnet_b0",
            {},
            r"torchvision's efficientnet_b0 .* efficientnet_b0 \(export for timm\): 0 of \d+ keys .*"
            r"conv_stem\.weight is \(32, 3, 3, 3\), expected none",
        ),
        (
            "resnet18",
            {"options": {"channels": [8, 16, 24, 32]}},
            r"another net than resnet18 \(channels 8, 16, 24, 32\) .*bn1\.weight is \(8,\), expected \(64,\)",
        ),
        (
            "resnet18",
            {"options": {"global_pool": "max"}},
            r"resnet18 \(global_pool max\) .* gives other features",
        ),
        ("densenet121", {"channels": 1}, r"features\.conv0\.weight is \(64, 1, 7, 7\), expected \(64, 3, 7, 7\)"),
    ],
)
def test_nets_that_torchvision_builds_in_another_way_are_refused(run, name, changes, said):
    here = run(name, **changes)
    with pytest.raises(UserError, match=said):
        export_encoder(here, here / "out.safetensors", "torchvision")
    assert not (here / "out.safetensors").exists()
