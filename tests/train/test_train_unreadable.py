"""Images that are checked when they are read: what a run does with those that it cannot read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from io import StringIO

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from frossl.core.types import UserError
from frossl.data.types import Skipped
from frossl.methods import METHODS
from frossl.runs.config import Config
from frossl.runs.data import load_run_data
from frossl.runs.log import UNREADABLE, Unreadable, read_unreadable
from frossl.runs.record import read_rows
from frossl.train.pretrain import pretrain
from rank_programs import finish, start_ranks

TINY = '{"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}'


def config(tmp_path, broken: Iterable[int], **changes) -> Config:
    """A run on 60 images, of which those with the numbers ``broken`` cannot be read."""
    folder = tmp_path / "images"
    folder.mkdir(exist_ok=True)
    for i in range(60):
        path = folder / f"{i:02d}.png"
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
        if i in broken:
            path.write_bytes(b"broken")
    fast = {"backbone_options": TINY, "batch": 8, "evaluate": False, "workers": 0, "monitor_every": "100%"}
    about = {"data": str(folder), "out": tmp_path / "runs", "data_dir": tmp_path, "name": "run", "length": "2ep"}
    return Config(**{**about, **fast, "check": "on-read", "rank_timeout": 300.0, **changes})


@pytest.fixture(autouse=True)
def sample_of_five(monkeypatch):
    monkeypatch.setattr("frossl.data.decide.IMAGES", 5)
    monkeypatch.setattr("frossl.train.pretrain.write_report", lambda runs, output, **_: output)


def test_a_run_lists_what_it_could_not_read_once(tmp_path):
    asked, text = config(tmp_path, {7, 30}), StringIO()
    outcome = pretrain(asked, console=Console(file=text, width=300))
    found, before = read_unreadable(outcome.run), load_run_data(asked).skipped
    assert sorted(skip.path for skip in (*found, *before)) == ["07.png", "30.png"]
    assert found
    assert f"{len(found)} images could not be read and were replaced" in text.getvalue()
    assert f"{found[0].path}: {found[0].reason}" in text.getvalue()


def test_more_than_five_percent_stop_the_run_after_a_save(tmp_path, monkeypatch):
    monkeypatch.setattr("frossl.data.build.MAX_UNREADABLE", 0.9)
    with pytest.raises(UserError, match=r"more than 5%.*--resume"):
        pretrain(config(tmp_path, range(0, 60, 3)))
    run = tmp_path / "runs" / "run"
    assert len(read_unreadable(run)) > 2
    assert list((run / "checkpoints").iterdir())


def test_the_limit_is_of_the_images_read_and_each_counts_once(tmp_path):
    of_two, skips = Unreadable(tmp_path, 10**7), [Skipped(f"{i}.jpg", "broken") for i in range(201)]
    for _ in range(3):
        of_two.add(skips[:50], 64)
    with pytest.raises(UserError, match="51 images"):
        of_two.add(skips[50:51], 64)
    again = Unreadable(tmp_path, 10**7)
    again.add(skips[:200], 4000)
    with pytest.raises(UserError, match="201 images"):
        again.add(skips[200:], 4000)
    assert [skip.path for skip in read_unreadable(tmp_path)] == [skip.path for skip in skips]
    assert len((tmp_path / UNREADABLE).read_text().splitlines()) == 201


STEADY = {"optimizer": "sgd", "lr": 0.02, "batch": 9, "precision": "64", "length": "4ep", "log_every": 1}


def test_ranks_replace_what_one_process_does_list_it_once_and_stop_together(tmp_path, monkeypatch):
    """Over some epochs both ranks meet the same unreadable image."""
    objective = METHODS["frossl"].Config(projector="16-bn-relu-16")
    asked = config(tmp_path, {7, 30}, objective=objective, **STEADY)
    alone = pretrain(dataclasses.replace(asked, name="alone")).run
    (tmp_path / "more").mkdir()
    monkeypatch.setattr("frossl.data.build.MAX_UNREADABLE", 0.9)
    too_many = config(tmp_path / "more", range(0, 60, 3), objective=objective, **STEADY)

    def work(rank: int) -> None:
        pretrain(asked)
        with pytest.raises(UserError, match=r"more than 5%.*--resume") as stopped:
            pretrain(too_many)
        print(stopped.value)

    said = finish(start_ranks(work, tmp_path / "said"), tmp_path / "said")
    together = tmp_path / "runs" / "run"
    assert read_unreadable(together) == read_unreadable(alone) != []
    rows = [read_rows(run / "metrics.jsonl") for run in (alone, together)]
    loss = [[row["loss"] for row in found if row["kind"] == "train"] for found in rows]
    assert len(loss[0]) == 4 * 6
    assert loss[1] == pytest.approx(loss[0], rel=1e-9)
    assert len({text[text.index("images cannot be read") - 3 :] for text in said}) == 1
