from __future__ import annotations

import threading
import time
from dataclasses import fields

import numpy as np
import pytest

from frossl.commands.bench import BenchViews
from frossl.commands.cache import Cache
from frossl.commands.views import Views
from frossl.core.types import UserError
from frossl.data import DataOptions, open_data
from frossl.data.threads import in_threads
from frossl.runs.config import Config


def test_typo_in_a_name_suggests():
    with pytest.raises(UserError, match=r"folder 'cifr10'.*data set.*'cifar10'"):
        open_data("cifr10")


def test_file_of_another_kind(tmp_path):
    file = tmp_path / "images.zip"
    file.write_bytes(b"")
    with pytest.raises(UserError, match=r"images\.zip.*type \.zip.*folder"):
        open_data(str(file))


def test_name_wins_over_a_folder_and_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet100").mkdir()
    said = []
    with pytest.raises(UserError, match="must be prepared"):
        open_data("imagenet100", log=said.append)
    assert "write ./imagenet100" in said[0]


def test_options_are_those_of_a_configuration_and_keywords_win(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((10, 4, 4), np.uint8))
    config = Config(data=str(tmp_path / "x.npy"), held_out=0.3, channels=3)
    data = open_data(config.data, config)
    assert (len(data.test), data.channels) == (3, 3)
    data = open_data(config.data, config, held_out=0.2, memory_limit=0)
    assert (len(data.test), data.channels) == (2, 3)
    with pytest.raises(TypeError, match="helt_out"):
        open_data(config.data, helt_out=0.2)


def test_options_of_data_have_one_owner():
    names = {field.name for field in fields(DataOptions)}
    for kind in (Config, Views, Cache, BenchViews):
        assert issubclass(kind, DataOptions)
    assert not names & set(Config.__annotations__)


@pytest.mark.parametrize(
    "bad", [{"channels": 0}, {"range": (1, 1)}, {"axes": "NCWX"}, {"held_out": 0.0}, {"held_out": 1.5}]
)
def test_bad_options(bad):
    with pytest.raises(UserError, match=next(iter(bad)).replace("_", "-")):
        open_data("cifar10", **bad)


@pytest.mark.parametrize("seconds", [0.0, 1e-3])
def test_images_that_are_read_in_no_time_are_read_without_threads(seconds):
    seen = set()

    def work(i: int) -> int:
        if seconds:
            time.sleep(seconds)
        seen.add(threading.get_ident())
        return i

    assert list(in_threads(work, 150, 2)) == list(range(150))
    assert (seen == {threading.get_ident()}) == (seconds == 0)


@pytest.mark.parametrize(("source", "said"), [("x" * 300, "name too long"), ("~no-such-user/images", "home directory")])
def test_places_that_cannot_be_looked_at_are_named(source, said):
    with pytest.raises(UserError, match=f"{source}: .*{said}"):
        open_data(source)
