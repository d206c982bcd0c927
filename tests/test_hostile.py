"""Input made to do harm: it is named, left out or refused, and runs nothing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zlib
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from test_train_faults import Touch, crafted
from test_train_loop import config, folder_of_images

from frossl.cli import main
from frossl.core.types import UserError
from frossl.nn.backbones import READ_FILES, build_backbone
from frossl.nn.encoder import read_encoder
from frossl.runs.checkpoint import newest_checkpoint
from frossl.runs.directory import read_run
from frossl.runs.export import export_encoder
from frossl.train.evaluate import evaluate_run
from frossl.train.pretrain import pretrain


def bomb(side: int = 100_000) -> bytes:
    """A small PNG that says it has 10 billion pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run on a folder that also holds a bomb, pickles, a loop of links and names that terminals would obey."""
    out = tmp_path_factory.mktemp("hostile")
    images = folder_of_images(out / "images", count=120)
    (images / "class0" / "bomb.png").write_bytes(bomb())
    (images / "class0" / "pickle.jpg").write_bytes(pickle.dumps(Touch(out / "trap")))
    torch.save({"a": Touch(out / "trap")}, images / "class1" / "torch.png")
    (images / "class1" / "loop").symlink_to(images, target_is_directory=True)
    (images / "class1" / "self.png").symlink_to("self.png")
    (images / "class1" / "\x1b[2Jred\x07<script>alert(1)</script>.png".replace("/", "\\")).write_bytes(b"no image")
    said = StringIO()
    console = Console(file=said, width=400, force_terminal=True, color_system=None)
    made = pretrain(config(images, out, name="r", evaluate=True, length="2it"), console=console).run
    (out / "said.txt").write_text(said.getvalue())
    return made


def test_bad_files_are_skipped_by_name_and_run_nothing(run):
    said = (run.parent / "said.txt").read_text()
    for name in ("bomb.png", "pickle.jpg", "torch.png", "self.png", "red"):
        assert name in said
    assert "decompression bomb" in said
    assert not (run.parent / "trap").exists()
    assert json.loads((run / "config.json").read_text())["images"] == [96, 24]


def test_names_cannot_command_the_terminal_or_the_browser(run):
    said = (run.parent / "said.txt").read_text()
    assert "\x1b[2J" not in said
    assert "\x07" not in said
    assert "<script>alert" not in (run / "report.html").read_text()


def test_errors_cannot_command_the_terminal(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "\x1b[2Jrun")])
    assert "\x1b[2J" not in capsys.readouterr().err


ACTIONS = {
    "resume": lambda run: pretrain(read_run(run)[0], resume=run),
    "evaluate": lambda run: evaluate_run(run, protocols=("knn",)),
    "export": lambda run: export_encoder(run, run / "out.safetensors"),
    "load": lambda run: read_encoder(run / "encoder.safetensors"),
}


@pytest.mark.parametrize("name", ["pickle", "torch zip", "torch legacy", "header of 200 MB", "overlapping tensors"])
@pytest.mark.parametrize("action", ACTIONS)
def test_crafted_files_are_refused_and_run_nothing(run, tmp_path, action, name):
    copy = tmp_path / "r"
    shutil.copytree(run, copy)
    content = crafted(tmp_path / "trap")[name]
    for path in (*(copy / "checkpoints").iterdir(), copy / "encoder.safetensors"):
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read|is whole"):
        ACTIONS[action](copy)
    assert not (tmp_path / "trap").exists()
    assert not (copy / "out.safetensors").exists()


@pytest.mark.parametrize("option", READ_FILES)
def test_an_encoder_cannot_make_timm_read_other_files(run, tmp_path, option):
    """timm unpickles the file at ``checkpoint_path``."""
    torch.save({"a": Touch(tmp_path / "trap")}, tmp_path / "evil.pth")
    copy = tmp_path / "r"
    shutil.copytree(run, copy)
    _, spec = read_encoder(copy / "encoder.safetensors")
    asked = json.dumps({**vars(spec), "options": {**spec.options, option: str(tmp_path / "evil.pth")}})
    save_file(load_file(copy / "encoder.safetensors"), copy / "encoder.safetensors", {"frossl_encoder": asked})
    with pytest.raises(UserError, match=f"leave out {option}"):
        evaluate_run(copy, protocols=("knn",))
    with pytest.raises(UserError, match=f"leave out {option}"):
        build_backbone("resnet18", options={option: "x"})
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    "text",
    ["[]", "3", '{"frossl": 1}', '{"frossl": 1, "config": {"method": "../../x"}}', "{" * 100_000],
    ids=["list", "number", "without a configuration", "a path for a method", "deep"],
)
def test_a_crafted_config_is_named(run, tmp_path, text):
    copy = tmp_path / "r"
    shutil.copytree(run, copy)
    (copy / "config.json").write_text(text)
    with pytest.raises(UserError):
        read_run(copy)


def test_a_directory_that_became_read_only_keeps_what_it_has(run, tmp_path, monkeypatch):
    """As root may write anywhere, the refusal is the system call's."""
    copy = tmp_path / "r"
    shutil.copytree(run, copy)
    before = newest_checkpoint(copy).read_bytes()

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match="Read-only file system"):
        pretrain(read_run(copy)[0], resume=copy)
    assert newest_checkpoint(copy).read_bytes() == before
