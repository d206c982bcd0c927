"""Published encoders: others load them with the same features, and no folder of something else is touched."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors import safe_open

import frossl.runs.publish as publish_room
from frossl.core.types import UserError
from frossl.nn.encoder import OWN, load_encoder, read_encoder, save_encoder
from frossl.runs.export import in_timm
from frossl.runs.publish import Published, publish_encoder

OPTIONS = {"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}
TINY = {"options": OPTIONS, "size": 32}
SMALL = TINY | {"stem": "small"}


def publish(run: Path, to: Path | str, **options) -> Published:
    return publish_encoder(run, str(to), lambda of: " ".join(of.sums), **options)


def features(model: torch.nn.Module, channels: int, size: int) -> torch.Tensor:
    x = torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.eval()(x)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("resnet18", TINY),
        ("resnet18", TINY | {"channels": 4, "mean": (0.1, 0.2, 0.3, 0.4), "std": (0.5,) * 4}),
        ("resnet18", {"options": OPTIONS | {"global_pool": "max"}, "size": 64}),
        ("vit_tiny_patch16_224", {"options": {"embed_dim": 16, "depth": 1, "num_heads": 2}, "size": 48}),
    ],
)
def test_timm_loads_the_folder_with_the_same_features_to_the_bit(run, tmp_path, name, changes):
    here = run(name, **changes)
    publish(here, tmp_path / "out", licence="mit")
    encoder, spec = load_encoder(here / "encoder.safetensors")
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    wanted = features(encoder, spec.channels, spec.size)
    assert torch.equal(features(model, spec.channels, spec.size), wanted)
    again, same = load_encoder(tmp_path / "out" / "model.safetensors")
    assert torch.equal(features(again, spec.channels, spec.size), wanted)
    assert (same.licence, same.mean) == ("mit", spec.mean)
    fed = timm.data.resolve_model_data_config(model)
    assert tuple(fed["input_size"]) == (spec.channels, spec.size, spec.size)
    assert (tuple(fed["mean"]), tuple(fed["std"]), fed["crop_pct"]) == (spec.mean, spec.std, 1.0)
    assert fed["interpolation"] == spec.interpolation
    assert model.num_classes == 0
    assert model.pretrained_cfg["license"] == "mit"


@pytest.mark.parametrize("stem", ["small", "cifar"])
def test_a_stem_that_timm_has_not_is_loaded_by_the_lines_of_the_card(run, tmp_path, monkeypatch, stem):
    here = run("resnet18", **SMALL | {"stem": stem})
    load = publish(here, tmp_path / "out").load
    assert not (tmp_path / "out" / "config.json").exists()
    monkeypatch.chdir(tmp_path / "out")
    names: dict = {}
    exec("\n".join(load), names)
    encoder, _ = load_encoder(here / "encoder.safetensors")
    assert torch.equal(features(names["model"], 3, 32), features(encoder, 3, 32))


def test_checksums_are_those_of_every_file(run, tmp_path):
    publish(run("resnet18", **TINY), tmp_path / "out")
    said = dict(line.split("  ")[::-1] for line in (tmp_path / "out" / "SHA256SUMS").read_text().splitlines())
    files = {path.name: path for path in (tmp_path / "out").iterdir()}
    assert said.keys() == files.keys() - {"SHA256SUMS"} == {"README.md", "config.json", "model.safetensors"}
    assert all(hashlib.sha256(files[name].read_bytes()).hexdigest() == digest for name, digest in said.items())
    assert (tmp_path / "out" / "README.md").read_text() == "config.json model.safetensors"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_publish_wrote_is_replaced(run, tmp_path):
    out = tmp_path / "deep" / "out"
    publish(run("resnet18", **TINY), out)
    publish(run("resnet18", **SMALL), out)
    assert contents(out).keys() == {"README.md", "model.safetensors", "SHA256SUMS"}
    assert read_encoder(out / "model.safetensors")[1].stem == "small"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def other_file(out: Path) -> None:
    (out / "notes.txt").write_text("mine")


def other_card(out: Path) -> None:
    (out / "README.md").write_text("mine")


def other_folder(out: Path) -> None:
    (out / ".git").mkdir()


def no_checksums(out: Path) -> None:
    (out / "SHA256SUMS").unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [(other_file, "notes.txt"), (other_card, "README.md"), (other_folder, r"\.git"), (no_checksums, "config.json")],
)
def test_a_folder_with_anything_else_is_left_alone(run, tmp_path, change, said):
    here, out = run("resnet18", **TINY), tmp_path / "out"
    publish(here, out)
    change(out)
    before = contents(out)
    with pytest.raises(UserError, match=said):
        publish(here, out)
    assert contents(out) == before


def test_what_timm_makes_something_else_of_is_not_written(run, tmp_path, monkeypatch):
    here, tell = run("resnet18", **TINY | {"size": 64}), publish_room.timm_config

    def told(args: dict):
        return lambda *given: tell(*given) | {"model_args": args}

    for args, said in ((OPTIONS | {"global_pool": "max"}, "other features"), ({}, "does not load")):
        monkeypatch.setattr(publish_room, "timm_config", told(args))
        with pytest.raises(UserError, match=said):
            publish(here, tmp_path / "place" / "out")
        assert not list((tmp_path / "place").iterdir())


def test_lines_that_make_something_else_are_not_written(run, tmp_path, monkeypatch):
    here, load = run("resnet18", **SMALL), publish_room._load
    monkeypatch.setattr(publish_room, "_load", lambda *of: [*load(*of), "model.conv1.weight.data *= 2"])
    with pytest.raises(UserError, match="other features"):
        publish(here, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_published_is_refused_with_a_sentence(run, tmp_path):
    here = run("resnet18", **TINY)
    with pytest.raises(UserError, match=r"cc by.*identifier"):
        publish(here, tmp_path / "out", licence="cc by")
    publish(here, tmp_path / "published")
    with pytest.raises(UserError, match="not the configuration of a run"):
        publish(tmp_path / "published", tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        publish(here, tmp_path / "file")
    path = here / "encoder.safetensors"
    encoder, spec = load_encoder(path)
    encoder.bn1.weight.data.fill_(torch.nan)
    save_encoder(path, encoder, spec)
    with pytest.raises(UserError, match="not finite"):
        publish(here, tmp_path / "out")
    object.__setattr__(spec, "backbone", f"{OWN}Net")
    save_encoder(path, encoder, spec)
    with pytest.raises(UserError, match="module of your own, Net"):
        publish(here, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("origin", "told", "base"),
    [
        ("", "", ""),
        ("hf-hub:org/name@v1", "hf-hub:org/name@v1", "org/name"),
        ("timm:resnet18.a1_in1k", "timm:resnet18.a1_in1k", "timm/resnet18.a1_in1k"),
        ("/home/someone/private.pth", "own weights", ""),
        ("runs/private", "own weights", ""),
    ],
)
def test_where_weights_came_from_is_told_if_that_is_public(run, tmp_path, origin, told, base):
    here = run("resnet18", **TINY, origin=origin, licence="cc-by-4.0" if origin else "")
    published = publish(here, tmp_path / "out")
    assert (published.base, published.licence) == (base, "cc-by-4.0" if origin else "unknown")
    assert told in published.started
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        header = json.dumps(file.metadata())
    assert "private" not in header + published.started


def test_an_option_that_would_be_a_line_of_python_is_refused(run):
    encoder, spec = load_encoder(run("resnet18", **TINY) / "encoder.safetensors")
    with pytest.raises(UserError, match="names of timm's arguments"):
        in_timm(replace(spec, options={"x=print(), y": 1}), encoder)


class Hub:
    """Stands in for the Hub: a repository is a folder."""

    def __init__(self, place: Path, error: Exception | None = None) -> None:
        self.place, self.error = place, error

    def create_repo(self, repo_id: str, *, exist_ok: bool) -> None:
        (self.place / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, commit_message: str, delete_patterns: list[str]
    ) -> None:
        if self.error:
            raise self.error
        for name in delete_patterns:
            (self.place / repo_id / name).unlink(missing_ok=True)
        shutil.copytree(folder_path, self.place / repo_id, dirs_exist_ok=True)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_none")

    def make(error: Exception | None = None) -> Path:
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub(tmp_path / "hub", error))
        return tmp_path / "hub" / "org" / "name"

    return make


def test_a_repository_gets_the_same_files_and_keeps_no_configuration_of_another_net(run, tmp_path, hub):
    place, here = hub(), run("resnet18", **TINY)
    load = publish(here, "hf:org/name").load
    publish(here, tmp_path / "out")
    assert contents(place) == contents(tmp_path / "out")
    assert "hf-hub:org/name" in load[-1]
    load = publish(run("resnet18", **SMALL), "hf:org/name").load
    assert contents(place).keys() == {"README.md", "model.safetensors", "SHA256SUMS"}
    names: dict = {"weights": str(place / "model.safetensors")}
    exec("\n".join(line for line in load if not line.startswith("weights")), names)
    assert 'hf_hub_download("org/name", "model.safetensors")' in "".join(load)


def test_a_hub_that_says_no_is_a_sentence_that_names_a_folder(run, hub):
    here = run("resnet18", **TINY)
    place = hub(ConnectionError("no route to host\nand a traceback"))
    with pytest.raises(UserError, match=r"org/name could not be .*no route to host\. .*--to FOLDER") as error:
        publish(here, "hf:org/name")
    assert "\n" not in str(error.value)
    assert contents(place) == {}


@pytest.mark.parametrize("name", ["", "name", "a/b/c", "org/na me", "org/..", "org/" + 99 * "x"])
def test_names_that_the_hub_has_not_are_refused_before_anything_is_asked(run, hub, name):
    hub(AssertionError("asked"))
    with pytest.raises(UserError, match="hf:ORG/NAME"):
        publish(run("resnet18", **TINY), f"hf:{name}")


def test_without_a_token_a_sentence_says_how_to_get_one(run, hub, monkeypatch):
    hub(AssertionError("asked"))
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)  # whoever is logged in here
    with pytest.raises(UserError, match=r"no token.*hf auth login.*--to FOLDER"):
        publish(run("resnet18", **TINY), "hf:org/name")
