from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from pictures import decoded, encoded
from PIL import Image

from fake_cuda import DEVICE, fake_cuda
from frossl.commands.bench import noise
from frossl.core.types import UserError
from frossl.data.cache import shrink
from frossl.data.decode import ORIENTATION_TAG, probe
from frossl.data.loader import iterate_loader, plain_batches, prefetched, training_batches, view_batches
from frossl.data.open import open_data
from frossl.data.types import Split
from frossl.views.make import crop_one
from frossl.views.params import sample_params
from frossl.views.recipes import VIEWS, View, least_side

RECIPE = (View(size=16, blur=0.5, solarize=0.2), View(size=8, count=3))


@pytest.fixture
def mixed(write, tmp_path):
    for i in range(30):
        write(f"{i:02d}.jpg", seed=i, size=(200 + 7 * i, 160 + 3 * i))
    return open_data(str(tmp_path / "set"))


def some(data, **options):
    batches = training_batches(data, RECIPE, batch=8, seed=1, **options)
    return [(b.index_N.tolist(), b.views) for b in islice(batches, 5)]


def same(a, b) -> bool:
    pairs = zip(a, b, strict=True)
    return all(i == j and all(torch.equal(x, y) for x, y in zip(v, w, strict=True)) for (i, v), (j, w) in pairs)


@pytest.mark.parametrize("options", [{"workers": 2}, {"prefetch": True}], ids=str)
def test_workers_and_threads_change_nothing(mixed, options):
    assert same(some(mixed), some(mixed, **options))


SCRIPT = """
import multiprocessing, sys
multiprocessing.set_start_method("{method}", force=True)
from frossl.data import open_data
from frossl.data.loader import training_batches
from frossl.views.recipes import View
{guard}:
    batches = training_batches(open_data(sys.argv[1]), (View(size=8, count=2),), batch=4, seed=0, workers=1)
    print(len(next(batches).index_N))
"""


def run_script(tmp_path, **parts: str) -> subprocess.CompletedProcess:
    (tmp_path / "script.py").write_text(SCRIPT.format(**parts))
    argv = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "set")]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="Windows has spawn alone")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_without_a_guard_is_told_to_have_one(mixed, tmp_path, method):
    said = run_script(tmp_path, method=method, guard="if True").stderr
    assert "--resume" not in said
    line = f"by '{method}' here, so each runs your script again. Put the call in it under if __name__ =="
    assert said.count(line) == 2  # by the worker, which came to the same call, and by the script


def test_a_script_with_a_guard_has_workers(mixed, tmp_path):
    ended = run_script(tmp_path, method="spawn", guard="if __name__ == '__main__'")
    assert (ended.returncode, ended.stdout) == (0, "4\n")


class MadeBy:
    """Images of one pixel: 1 where another process made it than wants them, else 0."""

    def __init__(self, count: int) -> None:
        self.count, self.parent = count, os.getpid()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> torch.Tensor:
        return torch.full((3, 1, 1), int(os.getpid() != self.parent), dtype=torch.uint8)

    def select(self, index: np.ndarray) -> MadeBy:
        return MadeBy(len(index))


@pytest.mark.parametrize("batches", [1, 2])
def test_one_batch_is_made_without_workers(batches):
    nothing, whole = [0.0] * 3, [1.0] * 3
    plain = plain_batches(Split(MadeBy(4 * batches)), 1, nothing, whole, batch=4, workers=1)
    views = view_batches(Split(MadeBy(256 * batches)), (View(size=1),), nothing, whole, seed=0, workers=1)
    assert torch.cat(list(plain)).mul(255).unique().tolist() == [batches - 1]
    assert torch.cat([group for x in views for group in x]).mul(255).round().unique().tolist() == [batches - 1]


def test_a_later_start_gives_the_same_batches(mixed):
    assert same(some(mixed)[2:], some(mixed, first_step=2)[:3])


def test_images_in_memory_give_the_views_of_the_same_images_decoded_one_by_one(write, tmp_path):
    """Bit for bit: both cut with torchvision's uint8 kernel."""
    for i in range(20):
        write(f"{i:02d}.png", seed=i, size=(24, 30))
    whole = open_data(str(tmp_path / "set"))
    lazy = open_data(str(tmp_path / "set"), memory_limit=0)
    assert whole.train.in_memory
    assert not lazy.train.in_memory
    lazy = replace(lazy, mean=whole.mean, std=whole.std)
    assert same(some(whole), some(lazy))


@pytest.mark.parametrize("size", [(35, 32), (32, 35), (33, 32), (40, 47)])
def test_evaluation_sees_the_same_square_in_memory_and_decoded_one_by_one(write, tmp_path, size):
    for i in range(4):
        write(f"{i}.png", seed=i, size=size)
    whole, lazy = (open_data(str(tmp_path / "set"), **options) for options in ({}, {"memory_limit": 0}))
    squares = [next(plain_batches(data.train, 32, (0.0,) * 3, (1.0,) * 3)) for data in (whole, lazy)]
    torch.testing.assert_close(*squares, atol=1.1 / 255, rtol=0)


def test_evaluation_loads_from_pinned_memory():
    with fake_cuda() as counts:
        batches = list(plain_batches(noise(8, 40).train, 32, (0.5,) * 3, (0.5,) * 3, batch=4, device=DEVICE))
    assert [x.device for x in batches] == [DEVICE] * 2
    assert not counts.waits
    assert counts.copies == 2 + 2  # mean and deviation, and the images of each batch


def test_the_thread_ahead_ends_with_its_items_passes_on_errors_and_closes_its_source():
    before, here = torch.get_num_threads(), torch.device("cpu")
    assert list(prefetched(iter(range(1, 6)), here)) == [1, 2, 3, 4, 5]
    closed = []

    def failing():
        try:
            yield 1
            raise ValueError("broken")
        finally:
            closed.append(True)

    items = prefetched(failing(), here)
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)
    items = prefetched(source := endless(closed), here)
    next(items)
    items.close()
    assert len(closed) == 2
    assert source.gi_frame is None
    assert threads_of_a_new_thread() == torch.get_num_threads() == before


def endless(closed):
    try:
        while True:
            yield 1
    finally:
        closed.append(True)


def threads_of_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


# Reduced decoding


def photograph(height: int, width: int, detail: int = 40) -> Image.Image:
    """Smooth between random colours ``detail`` pixels apart."""
    small = np.random.default_rng(0).integers(0, 256, (height // detail, width // detail, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def test_evaluation_leaves_images_as_they_are_though_they_are_floats():
    images = torch.rand(4, 3, 8, 8) * 255
    once, again = (next(plain_batches(Split(images), 8, (0.5,) * 3, (0.5,) * 3)) for _ in range(2))
    assert torch.equal(once, again)
    assert torch.equal(once, (images / 255 - 0.5) / 0.5)


@pytest.mark.parametrize(("least", "shape"), [(0, (600, 800)), (400, (600, 800)), (300, (300, 400)), (60, (75, 100))])
def test_a_large_jpeg_is_decoded_at_the_smallest_size_that_is_enough(least, shape):
    content = encoded(photograph(600, 800), "JPEG", quality=95)
    reduced, full = decoded(content, 3, least), decoded(content, 3)
    assert tuple(reduced.shape[1:]) == shape
    shrunk = torch.nn.functional.interpolate(full[None], shape, mode="bicubic", antialias=True)[0]
    assert (reduced.float() - shrunk.float()).abs().mean() < 1.5


def test_reduced_images_are_upright_and_grey_ones_stay_grey():
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    content = encoded(photograph(600, 800), "JPEG", quality=95, exif=exif)
    reduced, full = decoded(content, 3, 150), decoded(content, 3)
    assert tuple(full.shape[1:]) == (800, 600)
    assert tuple(reduced.shape[1:]) == (200, 150)
    grey = encoded(photograph(600, 800).convert("L"), "JPEG")
    assert tuple(decoded(grey, 1, 150).shape) == (1, 150, 200)


def test_only_jpegs_are_reduced():
    assert tuple(decoded(encoded(photograph(600, 800)), 3, 60).shape[1:]) == (600, 800)


@pytest.mark.parametrize("name", ["natural", "multicrop", "imagenet-symmetric", "cifar-emp"])
def test_no_crop_of_an_image_of_the_least_side_is_shrunk_by_less_than_two(name):
    recipe = tuple(replace(group, count=min(group.count, 2)) for group in VIEWS[name])
    side = least_side(recipe)
    for height, width in ((side, side), (side, 2 * side)):
        drawn = sample_params(recipe, seed=0, epoch=0, index_N=torch.arange(2000), height=height, width=width)
        for group, d in zip(recipe, drawn, strict=True):
            assert min(d.height.min(), d.width.min()) >= 2 * group.size - 1


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("detail", [4, 8, 40])
def test_a_view_of_a_reduced_jpeg_is_that_of_the_whole_one_within_two_grey_levels(reduction, detail):
    """The same crop of both, shrunk by two from the reduced one. Noise of 4 pixels is the worst case."""
    content = encoded(photograph(640, 960, detail), "JPEG", quality=95)
    side = 640 // reduction
    reduced, full = decoded(content, 3, side), decoded(content, 3)
    assert reduced.shape[1] == side
    group = View(count=6, size=side // 4, scale=(0.3, 1.0), flip=0.5)
    (drawn,) = sample_params((group,), seed=0, epoch=0, index_N=torch.tensor([0]), height=side, width=reduced.shape[2])
    times = {name: getattr(drawn, name) * reduction for name in ("top", "left", "height", "width")}
    a, b = crop_one(reduced, group, drawn).float(), crop_one(full, group, replace(drawn, **times)).float()
    assert b.std() > 5
    assert (a - b).abs().mean() < min(2, 0.2 * b.std())


def test_training_views_of_large_jpegs_are_those_of_the_whole_images_almost(write, tmp_path):
    """The corners of a crop are rounded to whole pixels of the reduced image, an eighth as many."""
    for i in range(4):
        write(f"{i}.jpg", content=encoded(photograph(900 + 40 * i, 1200, detail=200), "JPEG", quality=95))
    data = open_data(str(tmp_path / "set"), memory_limit=0)
    recipe = (View(size=16, jitter=0.0, grayscale=0.0, flip=0.0),)
    data = replace(data, mean=(0.0,) * 3, std=(1.0,) * 3)
    (views,) = next(training_batches(data, recipe, batch=2, seed=0)).views
    whole = replace(data, train=replace(data.train, images=[data.train.images[i] for i in range(len(data.train))]))
    (wanted,) = next(training_batches(whole, recipe, batch=2, seed=0)).views
    assert views.std() > 0.1
    assert (views - wanted).abs().mean() < 3 / 255


# Broken files


@pytest.mark.parametrize("options", [{}, {"cache": 30}], ids=["decoded each time", "stored"])
def test_five_percent_broken_jpegs_are_listed_once_each_and_nothing_else_changes(write, tmp_path, options):
    """Of every kind of damage that can be told from a whole file."""
    for i in range(160):
        write(f"{i:03d}.jpg", seed=i, size=(40, 60))
    plain, kinds = photograph(400, 600), ({}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 2})
    jpegs = [encoded(plain, "JPEG", **kind) for kind in kinds]
    thumbnail = Image.Exif()
    thumbnail[0x9286] = b"\xff\xd8 a picture within \xff\xd9"
    hollow = encoded(plain, "JPEG", subsampling=0, exif=thumbnail)
    contents = [jpegs[0][: len(jpegs[0]) // 2], jpegs[1][:-2000], b"", b"text", jpegs[3][:30]]
    contents += [hollow[:9000].ljust(len(hollow), b"\0"), jpegs[2][:-2] + bytes(2), encoded(plain, "GIF")[:3000]]
    broken = {f"{20 * i + 7:03d}.jpg": content for i, content in enumerate(contents)}
    for name, part in broken.items():
        write(name, content=part)
    write("160.jpg", content=encoded(photograph(40, 80), "PNG"))  # another name than its kind is no damage
    for _ in range(2):
        data = open_data(str(tmp_path / "set"), data_dir=tmp_path / "data", **options)
        assert [skip.path for skip in data.skipped] == sorted(broken)
        assert all(skip.reason for skip in data.skipped)
        good = [f"{i:03d}.jpg" for i in range(161) if f"{i:03d}.jpg" not in broken]
        whole = [decoded((tmp_path / "set" / name).read_bytes(), 3) for name in good]
        whole = [shrink(x, options["cache"]) for x in whole] if options else whole
        names = {x.contiguous().numpy().tobytes(): name for name, x in zip(good, whole, strict=True)}
        kept = [[names[x.contiguous().numpy().tobytes()] for x in split.images] for split in (data.train, data.test)]
        assert all(part == sorted(part) for part in kept)
        assert sorted(kept[0] + kept[1]) == good


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_what_comes_after_the_end_of_a_jpeg_is_no_damage(kind):
    """Phones put a second picture or a film there."""
    more = {"save_all": True, "append_images": [photograph(80, 120)]} if kind == "MPO" else {}
    content = encoded(photograph(400, 600), kind, quality=90, **more)
    assert probe(content + bytes(3000))[0].size == (400, 600)
    assert torch.equal(decoded(content + b"film", 3), decoded(content, 3))
    assert tuple(decoded(content, 3, least=150).shape[1:]) == (200, 300)


def test_a_full_shared_memory_is_named(monkeypatch):
    def full(*_, **__):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. ")

    monkeypatch.setattr("frossl.data.loader.DataLoader", full)
    with pytest.raises(UserError, match=r"/dev/shm.*fewer --workers"):
        next(iterate_loader([0], workers=2))
