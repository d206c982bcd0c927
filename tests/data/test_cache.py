from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from pictures import picture

from frossl.core.types import UserError
from frossl.data import cache
from frossl.data.cache import Stored, shrink
from frossl.data.decode import decode
from frossl.data.open import open_data

SIZES = [(40, 60), (60, 40), (90, 30), (20, 24), (33, 47)]


@pytest.fixture
def folder(write, tmp_path):
    for i in range(24):
        write(f"class{i % 2}/{i:02d}.png", seed=i, size=SIZES[i % len(SIZES)])
    return tmp_path / "set"


def opened(folder, tmp_path, **options):
    return open_data(str(folder), data_dir=tmp_path / "data", **{"cache": 16, **options})


def directories(tmp_path):
    return sorted(p for p in (tmp_path / "data" / "cache").iterdir() if p.is_dir())


def test_the_store_holds_each_image_shrunk_in_order_with_its_label(folder, tmp_path):
    stored, plain = opened(folder, tmp_path), open_data(str(folder), data_dir=tmp_path / "data")
    assert isinstance(stored.train.images, Stored)
    for a, b in ((stored.train, plain.train), (stored.test, plain.test)):
        assert torch.equal(a.labels, b.labels)
        for i in range(len(b)):
            assert torch.equal(a.images[i], shrink(b.images[i], 16))
            assert min(a.images[i].shape[1:]) == 16
    assert stored.classes == plain.classes
    assert stored.smallest == (16, 16)


def test_small_images_are_not_enlarged_and_images_of_one_size_are_one_mapped_tensor(write, tmp_path):
    for i in range(10):
        write(f"{i}.png", seed=i)
    data = opened(tmp_path / "set", tmp_path, cache=100)
    assert data.train.in_memory
    assert tuple(data.train.images.shape[1:]) == (3, 12, 16)
    assert torch.equal(data.train.images, open_data(str(tmp_path / "set")).train.images)
    assert data.typical == (12, 16)


def test_what_is_stored_is_not_decoded_again(folder, tmp_path, monkeypatch):
    first = opened(folder, tmp_path)
    monkeypatch.setattr("frossl.data.build.decode", lambda *a: pytest.fail("decoded again"))
    monkeypatch.setattr("frossl.data.build.probe", lambda *a: pytest.fail("looked through again"))
    second = opened(folder, tmp_path)
    assert all(torch.equal(first.train.images[i], second.train.images[i]) for i in range(len(first.train)))
    assert (first.mean, first.skipped, first.channels) == (second.mean, second.skipped, second.channels)


@pytest.mark.parametrize("torn", [0, 5], ids=["between images", "inside an image"])
def test_an_interrupted_store_goes_on_where_it_stopped(folder, tmp_path, monkeypatch, torn):
    whole = opened(folder, tmp_path / "whole")
    decoded = []

    def failing(*args):
        decoded.append(args)
        if len(decoded) > 12:
            raise KeyboardInterrupt
        return decode(*args)

    with monkeypatch.context() as patch:
        patch.setattr("frossl.data.build.decode", failing)
        patch.setattr("frossl.data.build.CHUNK", 4)
        patch.setattr(cache, "FLUSHED", 4)
        with pytest.raises(KeyboardInterrupt):
            opened(folder, tmp_path, workers=1)
    (directory,) = directories(tmp_path)
    done = (directory / "index.bin").stat().st_size // cache.ROW
    assert 4 <= done <= 12
    with open(directory / "pixels.bin", "ab") as pixels:
        pixels.write(b"x" * torn)
    with open(directory / "index.bin", "ab") as index:
        index.write(b"y" * torn)
    decoded.clear()
    with monkeypatch.context() as patch:
        patch.setattr("frossl.data.build.decode", lambda *args: (decoded.append(args), decode(*args))[1])
        again = opened(folder, tmp_path)
    assert len(decoded) == 24 - done
    for a, b in ((again.train, whole.train), (again.test, whole.test)):
        assert all(torch.equal(a.images[i], b.images[i]) for i in range(len(b)))


def test_a_damaged_store_is_refused(folder, tmp_path):
    opened(folder, tmp_path)
    pixels = directories(tmp_path)[0] / "pixels.bin"
    content = bytearray(pixels.read_bytes())
    content[100] ^= 1
    pixels.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged: 1 of .* Remove that directory"):
        opened(folder, tmp_path)


def test_other_sources_or_another_size_are_another_store(folder, tmp_path, write):
    opened(folder, tmp_path)
    before = directories(tmp_path)
    opened(folder, tmp_path, cache=17)
    assert len(directories(tmp_path)) == 2 * len(before)
    write("class0/00.png", seed=99, size=(50, 70))
    changed = opened(folder, tmp_path)
    assert len(directories(tmp_path)) > 2 * len(before)
    every = [changed.train.images[i] for i in range(len(changed.train))]
    every += [changed.test.images[i] for i in range(len(changed.test))]
    new = shrink(torch.from_numpy(np.array(picture(99, (50, 70)))).permute(2, 0, 1), 16)
    assert any(x.shape == new.shape and torch.equal(x, new) for x in every)


def test_a_stored_image_is_a_copy_and_the_store_pickles_as_its_path(folder, tmp_path):
    images = opened(folder, tmp_path).train.images
    before = images[0].clone()
    images[0].zero_()
    assert torch.equal(images[0], before)
    sent = pickle.dumps(images)
    assert len(sent) < 4000
    assert torch.equal(pickle.loads(sent)[3], images[3])


def test_broken_files_are_listed_once_and_remembered(write, tmp_path):
    for i in range(40):
        write(f"{i:02d}.png", seed=i)
    write("20.png", content=b"not an image")
    for _ in range(2):
        data = opened(tmp_path / "set", tmp_path)
        assert [skip.path for skip in data.skipped] == ["20.png"]
        assert len(data.train) + len(data.test) == 39


def test_nonsense_sizes_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="at least 1"):
        opened(folder, tmp_path, cache=0)
