from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import shutil
import sys
import time

import numpy as np
import pytest
import torch
from pictures import encoded, picture
from PIL import Image

from frossl.core.types import UserError
from frossl.data import cache
from frossl.data.cache import Stored, shrink
from frossl.data.decode import UnreadableError, decode, probe
from frossl.data.loader import training_batches
from frossl.data.open import open_data
from frossl.views.recipes import View

COUNT = 24
SIZES = [(40, 60), (60, 40), (90, 30), (20, 24), (33, 47)]


@pytest.fixture
def folder(write, tmp_path):
    for i in range(COUNT):
        write(f"class{i % 2}/{i:02d}.png", seed=i, size=SIZES[i % len(SIZES)])
    return tmp_path / "set"


def opened(folder, tmp_path, **options):
    return open_data(str(folder), **{"data_dir": tmp_path / "data", "cache": 16, **options})


def directories(tmp_path):
    return sorted(p for p in (tmp_path / "data" / "cache").iterdir() if p.is_dir())


def pixels(data):
    """All images as bytes with their sizes, training before held-out."""
    return [(tuple(x.shape), x.contiguous().numpy().tobytes()) for part in (data.train, data.test) for x in part.images]


def in_a_process(work, *args):
    """Starts ``work`` in a fork of this process; it ends with 0, or 1 if it failed."""
    process = multiprocessing.get_context("fork").Process(target=_single_threaded, args=(work, *args))
    process.start()
    return process


def _single_threaded(work, *args):
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    work(*args)


def slowly(*args):
    time.sleep(0.003)
    return decode(*args)


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


def test_small_images_are_not_enlarged_and_images_of_one_size_are_in_memory_if_they_fit(write, tmp_path):
    for i in range(10):
        write(f"{i}.png", seed=i)
    assert not opened(tmp_path / "set", tmp_path, cache=100, memory_limit=1000).train.in_memory
    data = opened(tmp_path / "set", tmp_path, cache=100)
    assert data.train.in_memory
    assert tuple(data.train.images.shape[1:]) == (3, 12, 16)
    assert torch.equal(data.train.images, open_data(str(tmp_path / "set")).train.images)
    assert data.typical == (12, 16)


@pytest.mark.parametrize("limit", [0, 2**30])
def test_sizes_are_those_of_the_stored_images(write, tmp_path, limit):
    """A JPEG decoded at a part of its size has sides that were rounded up: shrunk, it may be a pixel shorter."""
    for i in range(12):
        write(f"{i}.jpg", seed=i, size=(750, 1001))
    data = opened(tmp_path / "set", tmp_path, cache=100, memory_limit=limit)
    assert data.train.in_memory == (limit > 0)
    sizes = {tuple(x.shape[1:]) for part in (data.train, data.test) for x in part.images}
    assert sizes == {data.smallest} == {data.largest} == {data.typical}


def test_what_is_stored_is_not_decoded_again(folder, tmp_path, monkeypatch):
    first = opened(folder, tmp_path)
    monkeypatch.setattr("frossl.data.sources.decode", lambda *a: pytest.fail("decoded again"))
    monkeypatch.setattr("frossl.data.scan.probe", lambda *a: pytest.fail("looked through again"))
    second = opened(folder, tmp_path)
    assert all(torch.equal(first.train.images[i], second.train.images[i]) for i in range(len(first.train)))
    assert (first.mean, first.skipped, first.channels) == (second.mean, second.skipped, second.channels)


def test_one_store_serves_every_choice_of_held_out_images(folder, tmp_path, monkeypatch):
    choice = {"seed": 1, "held_out": 0.3, "labels": False}
    wanted = [shrink(x, 16) for x in open_data(str(folder), data_dir=tmp_path / "data", **choice).test.images]
    opened(folder, tmp_path)
    monkeypatch.setattr("frossl.data.sources.decode", lambda *a: pytest.fail("decoded again"))
    held_out = opened(folder, tmp_path, **choice).test.images
    assert len(directories(tmp_path)) == 1
    assert len(held_out) == len(wanted) == 7
    assert all(torch.equal(a, b) for a, b in zip(held_out, wanted, strict=True))


def test_a_store_killed_at_any_moment_goes_on_to_the_same_pixels(folder, tmp_path, monkeypatch):
    whole = pixels(opened(folder, tmp_path / "whole"))
    monkeypatch.setattr("frossl.data.threads.CHUNK", 2)
    monkeypatch.setattr("frossl.data.sources.decode", slowly)
    monkeypatch.setattr(cache, "FLUSHED", 2)
    generator, reached = np.random.default_rng(0), set()
    for attempt in range(200):
        process = in_a_process(lambda: opened(folder, tmp_path, workers=1))
        process.join(generator.uniform(0, 0.02 + 0.01 * attempt))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        for directory in directories(tmp_path) if (tmp_path / "data" / "cache").exists() else ():
            index = directory / "index.bin"
            reached.add(index.stat().st_size // 32 if index.exists() else 0)
    assert process.exitcode == 0
    assert any(0 < n < COUNT for n in reached)
    monkeypatch.setattr("frossl.data.sources.decode", lambda *a: pytest.fail("decoded again"))
    assert pixels(opened(folder, tmp_path)) == whole


def test_two_processes_fill_one_store_one_after_the_other(folder, tmp_path, monkeypatch):
    decodes = tmp_path / "decodes"

    def counted(*args):
        with open(decodes, "ab", buffering=0) as file:
            file.write(b".")
        return slowly(*args)

    monkeypatch.setattr("frossl.data.sources.decode", counted)
    processes = [in_a_process(lambda: opened(folder, tmp_path)) for _ in range(3)]
    try:
        for process in processes:
            process.join(120)
    finally:
        for process in processes:
            process.kill()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert decodes.stat().st_size == COUNT
    said = []
    with cache.alone(directories(tmp_path)[0] / "lock", said.append):
        assert pixels(opened(folder, tmp_path, log=said.append))  # a whole store asks for no lock
    assert said == []


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_a_full_disk_is_named_and_what_was_stored_stays(folder, tmp_path, monkeypatch):
    whole = pixels(opened(folder, tmp_path / "whole"))
    monkeypatch.setattr(cache, "FLUSHED", 4)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    opened(folder, tmp_path)
    shutil.rmtree(directories(tmp_path)[0])
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*File too large.* make room, or .*--data-dir"):
            opened(folder, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert 0 < (directories(tmp_path)[0] / "index.bin").stat().st_size < COUNT * 32
    assert pixels(opened(folder, tmp_path)) == whole


def test_a_place_that_cannot_be_written_to_is_named_but_a_whole_store_there_is_read(folder, tmp_path, monkeypatch):
    whole, real = pixels(opened(folder, tmp_path)), os.open
    (tmp_path / "file").touch()

    def refuse(path, flags, *args, **more):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", refuse)
    assert pixels(opened(folder, tmp_path)) == whole
    with pytest.raises(UserError, match=r"cannot write .*Permission denied.*--data-dir"):
        opened(folder, tmp_path, cache=17)
    with pytest.raises(UserError, match=r"cannot write .*--data-dir"):
        opened(folder, tmp_path, data_dir=tmp_path / "file")


def test_a_place_without_locks_is_named(folder, tmp_path, monkeypatch):
    def unsupported(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock; use SoftFileLock instead")

    monkeypatch.setattr(cache.FileLock, "acquire", unsupported)
    with pytest.raises(UserError, match=r"cache.*locks.*--data-dir"):
        opened(folder, tmp_path)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_to_its_files_a_store_gives_its_pixels_or_is_refused(folder, tmp_path, seed):
    whole = pixels(opened(folder, tmp_path))
    generator = np.random.default_rng(seed)
    files = sorted(path for path in (tmp_path / "data" / "cache").rglob("*") if path.suffix in (".bin", ".json"))
    path = files[seed % len(files)]
    content = bytearray(path.read_bytes())
    place = int(generator.integers(len(content)))
    damage = seed // len(files) % 3
    if damage == 0:
        content = content[:place]
    elif damage == 1:
        content[place] ^= 1 << int(generator.integers(8))
    else:
        content[place:place] = generator.bytes(int(generator.integers(1, 100)))
    path.write_bytes(content)
    outcome = outcome_of(lambda: pixels(opened(folder, tmp_path)))
    assert outcome == whole or (path.suffix == ".bin" and "is damaged" in outcome)


def outcome_of(work):
    try:
        return work()
    except UserError as error:
        return str(error)


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
    opened(folder, tmp_path, cache=17)
    assert len(directories(tmp_path)) == 2
    write("class0/00.png", seed=99, size=(50, 70))
    changed = opened(folder, tmp_path)
    assert len(directories(tmp_path)) == 3
    every = [changed.train.images[i] for i in range(len(changed.train))]
    every += [changed.test.images[i] for i in range(len(changed.test))]
    new = shrink(torch.from_numpy(np.array(picture(99, (50, 70)))).permute(2, 0, 1), 16)
    assert any(x.shape == new.shape and torch.equal(x, new) for x in every)


def test_a_source_of_the_same_length_and_time_of_modification_is_another_source(write, tmp_path):
    for i in range(6):
        path = write(f"{i}.bmp", seed=i)
    before, old = path.stat(), opened(tmp_path / "set", tmp_path)
    write("5.bmp", seed=99)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert pixels(opened(tmp_path / "set", tmp_path)) != pixels(old)


def test_a_stored_image_is_a_copy_and_the_store_pickles_as_its_path(folder, tmp_path):
    images = opened(folder, tmp_path).train.images
    before = images[0].clone()
    images[0].zero_()
    assert torch.equal(images[0], before)
    sent = pickle.dumps(images)
    assert len(sent) < 4000
    assert torch.equal(pickle.loads(sent)[3], images[3])


def test_files_that_cannot_be_read_are_listed_and_only_they_are_tried_again(write, tmp_path, monkeypatch):
    for i in range(40):
        write(f"{i:02d}.png", seed=i)
    write("20.png", content=b"not an image")
    tried, busy = [], ["19.png"]

    def tried_probe(path, *how):
        tried.append(os.path.basename(path))
        if tried[-1] in busy:
            raise UnreadableError("Too many open files")
        return probe(path, *how)

    monkeypatch.setattr("frossl.data.scan.probe", tried_probe)
    assert [skip.path for skip in opened(tmp_path / "set", tmp_path).skipped] == ["19.png", "20.png"]
    assert len(tried) == 40
    for again in (["19.png", "20.png"], ["20.png"]):
        tried.clear()
        busy.clear()
        data = opened(tmp_path / "set", tmp_path, workers=1)
        assert tried == again
        assert [skip.path for skip in data.skipped] == ["20.png"]
        assert len(data.train) + len(data.test) == 39
    assert pixels(data) == pixels(opened(tmp_path / "set", tmp_path / "other"))


def test_nonsense_sizes_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="at least 1"):
        opened(folder, tmp_path, cache=0)


def copied_memory(process) -> int:
    """Bytes that no other process shares and that are no pages of a file."""
    with open(f"/proc/{process.pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Private_Dirty"))


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="Linux tells who holds which memory")
def test_workers_share_the_store(write, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (420, 440, 3), dtype=np.uint8)
    for i in range(100):
        write(f"{i}.bmp", content=encoded(Image.fromarray(noise[: 400 + i % 2]), "BMP"))
    data = opened(tmp_path / "set", tmp_path, cache=1000)
    store = (directories(tmp_path)[0] / "pixels.bin").stat().st_size
    assert store > 50e6
    others = multiprocessing.active_children()
    batches = training_batches(data, (View(size=8),), batch=10, seed=0, workers=2)
    next(batches)
    workers = [worker for worker in multiprocessing.active_children() if worker not in others]
    before = [copied_memory(worker) for worker in workers]
    for _ in range(18):
        next(batches)
    grown = [copied_memory(worker) - start for worker, start in zip(workers, before, strict=True)]
    assert len(grown) == 2
    assert max(grown) < store / 5
