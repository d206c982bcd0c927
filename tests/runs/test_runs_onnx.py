"""Encoders as ONNX files."""

from __future__ import annotations

import json
import re

import onnx
import pytest
import torch
from torch import nn

import frossl.runs.onnx as onnx_room
from frossl.core.types import UserError
from frossl.nn.encoder import load_encoder
from frossl.runs.export import export_encoder

TINY = {"options": {"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}, "size": 32}
VIT = {"options": {"embed_dim": 16, "depth": 1, "num_heads": 2}, "size": 32}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("resnet18", TINY | {"channels": 4, "mean": (0.5,) * 4, "std": (0.2,) * 4, "range": (0.0, 4095.0)}),
        ("resnet18", TINY | {"stem": "small"}),
        ("vit_tiny_patch16_224", VIT),
    ],
)
def test_the_printed_lines_run_the_file_which_gives_the_same_features(run, name, changes, capfd):
    here = run(name, **changes)
    text = export_encoder(here, here / "out.onnx", "onnx")
    assert capfd.readouterr() == ("", "")
    names: dict = {}
    exec(text, names)  # what a user would paste
    encoder, spec = load_encoder(here / "encoder.safetensors")
    x = torch.randn(5, spec.channels, spec.size, spec.size)
    with torch.no_grad():
        wanted = encoder(x)
    found = torch.from_numpy(names["features"](x.numpy()))
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    (said,) = re.findall(r"by (\S+) of the largest", text)
    assert 0 <= float(said) <= 1e-5
    about = {p.key: p.value for p in onnx.load(here / "out.onnx").metadata_props}
    numbers = {key: json.loads(about[key]) for key in ("size", "channels", "mean", "std", "range")}
    assert numbers == {key: value if isinstance(value := getattr(spec, key), int) else [*value] for key in numbers}


def test_no_path_of_this_machine_is_in_the_file(run, monkeypatch):
    here = run("resnet18", **TINY)
    export_encoder(here, here / "out.onnx", "onnx")
    assert b"site-packages" not in (here / "out.onnx").read_bytes()
    monkeypatch.setattr(onnx_room, "_forget_places", lambda graph: None)
    export_encoder(here, here / "told.onnx", "onnx")
    assert b"site-packages" in (here / "told.onnx").read_bytes()  # else this looks for nothing


class Other(nn.Module):
    """The encoder when it is written, another one when it is compared."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x) * (1.0 if torch.compiler.is_compiling() else 1.001)


class Unwritable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) if x.sum().item() > 0 else x.amax((2, 3))


@pytest.mark.parametrize(("change", "said"), [(Other, "other features"), (lambda _: Unwritable(), "cannot write")])
def test_a_net_that_comes_out_as_another_or_not_at_all_is_not_written(run, tmp_path, change, said):
    encoder, spec = load_encoder(run("resnet18", **TINY) / "encoder.safetensors")
    with pytest.raises(UserError, match=said):
        onnx_room.write_onnx(tmp_path / "out.onnx", change(encoder).eval(), spec)
    assert not list(tmp_path.glob("*.onnx*"))


def test_without_the_extra_a_sentence_says_what_to_install(run, monkeypatch):
    here = run("resnet18", **TINY)
    monkeypatch.setattr(onnx_room, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(UserError, match=r"need no_such_package: pip install 'frossl\[onnx\]'"):
        export_encoder(here, here / "out.onnx", "onnx")


def test_a_suffix_of_another_form_is_refused(run):
    here = run("resnet18", **TINY)
    with pytest.raises(UserError, match="--format onnx"):
        export_encoder(here, here / "out.onnx")
    with pytest.raises(UserError, match=r"written as \.onnx"):
        export_encoder(here, here / "out.safetensors", "onnx")
