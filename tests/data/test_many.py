"""What holds for millions of images: compact names, shared memory, images that are checked when they are read."""

from __future__ import annotations

import multiprocessing.context
import os
import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frossl.core.shared import SharedArray
from frossl.core.types import UserError
from frossl.data import open_data
from frossl.data.folder import Files, list_images
from frossl.data.loader import training_batches
from frossl.data.names import Names
from frossl.data.options import Opening
from frossl.data.reading import Reading
from frossl.data.scan import PROBE, Scan, look_through, noted
from frossl.data.sources import LazyImages
from frossl.views.recipes import View

COUNT, BROKEN = 120, ("03", "50", "77")


@pytest.fixture
def sampled(write, tmp_path, monkeypatch):
    """A folder of two classes of which ten images are read at the start, and three cannot be read."""
    monkeypatch.setattr("frossl.data.decide.IMAGES", 10)
    for i in range(COUNT):
        write(f"{'ab'[i % 2]}/{i:02d}.png", seed=i)
    for name in BROKEN:
        write(f"{'ab'[int(name) % 2]}/{name}.png", content=b"not an image")
    return tmp_path / "set"


def test_names_are_what_a_list_has_whatever_their_bytes():
    names = ["b/c.png", "", "ü/𝄞.png", os.fsdecode(b"\xff\xc3.png"), "line\nfeed", "\ue000"]
    kept = Names(names)
    for same in (kept, pickle.loads(pickle.dumps(kept))):
        assert list(same) == [same[i] for i in range(len(same))] == same[:] == names
        assert same[-1] == names[-1]
    with pytest.raises(IndexError):
        kept[len(names)]


def test_files_are_listed_in_the_order_of_their_whole_paths(write, tmp_path):
    names = ["a/b.png", "a.png", "a-b/c.png", "a/b/c.png", "a0.png", "a/é.png", "a/\ue000.png", "Z/z.png", "b/a.png"]
    names.append(os.fsdecode(b"a/\xff\xc3.png"))
    for name in names:
        write(name)
    files, _ = list_images(tmp_path / "set")
    assert list(files.paths) == sorted(names)
    assert files[0] == f"{tmp_path}/set/{sorted(names)[0]}"
    assert files.folders() == [name.partition("/")[0] if "/" in name else "" for name in sorted(names)]
    below = files.below("a/")
    assert list(below.paths) == sorted(name for name in names if name.startswith("a/"))
    assert below.folders() == ["b" if name == "a/b/c.png" else "" for name in below.paths]
    assert "�" in files.name(list(files.paths).index(names[-1]))


def test_images_are_sent_as_few_bytes_or_when_spawned_as_a_file(monkeypatch):
    names = [f"train/class{i % 100:03d}/{i:08d}.jpeg" for i in range(100_000)]
    index = np.arange(len(names)).view(SharedArray)
    images = LazyImages(Files("root", Names(names)), index, Reading(3))
    assert len(pickle.dumps(images)) < len(names) * (len(names[0]) + 17)
    monkeypatch.setattr("frossl.core.shared.LARGE", 2**16)
    multiprocessing.context.set_spawning_popen(object())
    try:
        sent = bytes(ForkingPickler.dumps(images))
        assert len(sent) < 2000
        assert bytes(ForkingPickler.dumps(images)) == sent
    finally:
        multiprocessing.context.set_spawning_popen(None)
    got = pickle.loads(sent)
    assert isinstance(got.index, np.memmap)
    assert got.sources[99_999] == f"root/{names[99_999]}"
    assert np.array_equal(got.index, index)
    files = [Path(array._path) for array in (index, images.sources.paths.letters, images.sources.paths.ends)]
    assert all(file.exists() for file in files)
    del images, index
    assert not any(file.exists() for file in files)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_replaced_by_the_same_one_whatever_the_workers(sampled, workers):
    data = open_data(str(sampled), check="on-read", held_out=0.05)
    names = [data.train.images.sources.name(i) for i in data.train.images.index]
    assert not data.train.in_memory
    assert any("on-read" in note for note in data.notes)
    assert (data.typical, data.channels) == ((12, 16), 3)
    batches = training_batches(data, (View(size=8),), batch=len(data.train), seed=0, workers=workers)
    first, second = next(batches), next(batches)
    left = {skip.path for skip in first.skipped}
    assert left | {skip.path for skip in data.skipped} == {f"{'ab'[int(name) % 2]}/{name}.png" for name in BROKEN}
    assert left == {skip.path for skip in second.skipped} != set()
    for place, i in enumerate(first.index_N.tolist()):
        label = data.classes[first.labels_N[place]]
        if names[i] in left:
            shown = data.train.images.show(i)
            assert names[shown.chosen] not in left
            assert label == names[shown.chosen][0]
            assert torch.equal(data.train.images[i], data.train.images[shown.chosen])
        else:
            assert label == names[i][0]
    alone = next(training_batches(data, (View(size=8),), batch=len(data.train), seed=0))
    assert torch.equal(alone.views[0], first.views[0])
    assert torch.equal(alone.labels_N, first.labels_N)


def test_held_out_images_are_all_read_and_the_others_only_in_a_sample(sampled, monkeypatch):
    looked = []
    monkeypatch.setattr(
        "frossl.data.scan.in_threads", lambda work, total, _: looked.append(total) or map(work, range(total))
    )
    data = open_data(str(sampled), check="on-read", held_out=0.5)
    whole = open_data(str(sampled), held_out=0.5)
    assert looked == [10, COUNT]
    test = data.test.images
    assert not test.unchecked
    assert len([test[i] for i in range(len(test))]) == len(test)
    assert len(whole.train) + len(whole.test) == COUNT - len(BROKEN)


class Two:
    """Sources that are named as those of another split."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __len__(self) -> int:
        return 2

    def name(self, index: int) -> str:
        return f"{index}.png"


def test_splits_of_as_many_images_of_the_same_names_have_each_its_own_scan(monkeypatch):
    made = []

    def look(sources: Two, options: Opening, places: np.ndarray) -> Scan:
        made.append(sources.at)
        return Scan(np.array([sources.at]), np.empty(0, PROBE), [], [])

    def kept() -> list[int]:
        return [int(look_through(Two(at), Opening(), np.arange(2)).kept[0]) for at in (0, 1)]  # type: ignore[arg-type]

    monkeypatch.setattr("frossl.data.scan._look_through", look)
    with noted() as scans:
        assert kept() == [0, 1]
    with noted(scans):
        assert kept() == [0, 1]
    assert made == [0, 1]


def test_too_many_unreadable_held_out_images_stop(write, sampled):
    for i in range(0, COUNT, 10):
        write(f"{'ab'[i % 2]}/{i:02d}.png", content=b"")
    with pytest.raises(UserError, match="more than 5%"):
        open_data(str(sampled), check="on-read", held_out=0.5)


def test_an_image_that_is_not_what_the_sample_was_is_replaced(write, sampled):
    data = open_data(str(sampled), check="on-read", channels=3)
    images = data.train.images
    odd = images.sources.name(int(images.index[5]))
    write(odd, seed=5, mode="I;16")
    shown = images.show(5)
    assert (shown.skipped[0].path, "uint16" in shown.skipped[0].reason) == (odd, True)


def test_a_store_has_no_use_for_images_that_are_not_read(tmp_path):
    with pytest.raises(UserError, match=r"--cache.*--check"):
        open_data(str(tmp_path), cache=16, check="on-read")


def test_values_of_another_type_than_the_sample_are_replaced(tmp_path, monkeypatch):
    """They would be on another scale."""
    monkeypatch.setattr("frossl.data.decide.IMAGES", 10)
    (tmp_path / "set").mkdir()
    values = np.random.default_rng(0).integers(0, 4000, (COUNT, 12, 12), dtype=np.uint16)
    for i, x in enumerate(values):
        Image.fromarray(x).save(tmp_path / "set" / f"{i:03}.tif")
    plain = open_data(str(tmp_path / "set"), check="on-read")
    odd = 1
    path = plain.train.images.sources[int(plain.train.images.index[odd])]
    Image.fromarray(values[0].astype(np.float32) / 4000).save(path)
    shown = plain.train.images.show(odd)
    assert shown.chosen != odd
    assert "float32" in shown.skipped[0].reason
