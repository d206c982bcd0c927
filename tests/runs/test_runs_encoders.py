"""Encoders of runs, and runs that began with one: what is opened, and what is not."""

from __future__ import annotations

import json

import pytest
import timm
import torch

from frossl.core.types import UserError
from frossl.nn.encoder import load_encoder
from frossl.nn.published import OWN_WEIGHTS, Architecture
from frossl.runs.config import Config
from frossl.runs.encoders import START_FILE, load_any_encoder, read_any_encoder, start_weights
from frossl.runs.publish import publish_encoder

TINY = {"channels": (8, 8, 8, 16), "layers": (1, 1, 1, 1)}


def test_a_run_is_an_encoder_like_any_other(run):
    place = run("resnet18", options={k: list(v) for k, v in TINY.items()})
    encoder, spec = load_any_encoder(str(place))
    assert (spec.size, spec.origin) == (64, OWN_WEIGHTS)
    assert encoder(torch.randn(1, 3, 64, 64)).shape == (1, 16)
    assert (
        read_any_encoder(str(place / "encoder.safetensors"))[1].origin == OWN_WEIGHTS
    )  # of a file, too, it is not told whose


def test_a_run_that_has_begun_never_opens_what_its_configuration_names(run, tmp_path):
    place = run("resnet18", options={k: list(v) for k, v in TINY.items()})
    other = tmp_path / "other.pt"
    torch.save(timm.create_model("resnet18", **TINY).state_dict(), other)
    config = Config(data="x", init=str(other), backbone_options=json.dumps(TINY))
    with pytest.raises(UserError, match=START_FILE):
        start_weights(config, place)
    (place / "encoder.safetensors").rename(place / START_FILE)
    begun = start_weights(config, place)
    assert begun is not None
    assert not torch.equal(begun[0]["conv1.weight"], torch.load(other, weights_only=True)["conv1.weight"])


@pytest.mark.parametrize("prefixes", [("encoder_q.", "encoder_k."), ("backbone.", "backbone_momentum.")])
def test_of_a_trained_network_and_its_average_the_trained_one_is_taken(tmp_path, prefixes):
    nets = [timm.create_model("resnet18", **TINY).state_dict() for _ in prefixes]
    torch.save({p + k: v for p, net in zip(prefixes, nets, strict=True) for k, v in net.items()}, tmp_path / "both.pt")
    said: list[str] = []
    state, _ = read_any_encoder(
        str(tmp_path / "both.pt"), net=Architecture(options={k: list(v) for k, v in TINY.items()}), log=said.append
    )
    assert torch.equal(state["conv1.weight"], nets[0]["conv1.weight"])
    assert any(prefixes[0] in line for line in said)


def test_a_mistyped_run_is_answered_with_the_one_beside_it(run):
    place = str(run("resnet18", options={k: list(v) for k, v in TINY.items()}))
    with pytest.raises(UserError, match=f"Did you mean '{place}'"):
        read_any_encoder(f"{place}s")
    with pytest.raises(UserError, match="there is no encoder 'far/away': give RUN"):
        read_any_encoder("far/away")


def test_a_wrong_option_is_a_sentence(tmp_path):
    torch.save(timm.create_model("resnet18", **TINY).state_dict(), tmp_path / "w.pt")
    with pytest.raises(UserError, match="JSON"):
        start_weights(Config(data="x", init=str(tmp_path / "w.pt"), backbone_options="{'drop"))


@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_what_was_published_is_a_start_from_a_folder_and_from_the_hub(run, tmp_path, monkeypatch, stem):
    place = run(
        "resnet18", options={k: list(v) for k, v in TINY.items()}, stem=stem, values="uint16", range=(10.0, 900.0)
    )
    out = tmp_path / "published"
    publish_encoder(place, str(out), lambda of: "card")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, file, revision: str(out / file))
    x = torch.randn(2, 3, 64, 64)
    wanted, spec = load_encoder(place / "encoder.safetensors")
    for where in (str(out), "hf-hub:someone/something@main"):
        encoder, again = load_any_encoder(where)
        assert torch.equal(encoder(x), wanted(x))
        assert (again.range, again.stem, again.values) == (spec.range, stem, "uint16")
