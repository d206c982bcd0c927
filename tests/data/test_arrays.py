from __future__ import annotations

import zipfile
from contextlib import suppress
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.format import write_array_header_1_0
from numpy.lib.npyio import NpzFile

from frossl.core.types import UserError
from frossl.data import Split, from_tensors, open_data
from frossl.data.loader import training_batches
from frossl.nn.backbones import build_backbone
from frossl.views.recipes import VIEWS, domain, left_out


def noise(count: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 12, 10, channels), dtype=np.uint8)


def saved(tmp_path, **arrays) -> str:
    np.savez(tmp_path / "set.npz", **arrays)
    return str(tmp_path / "set.npz")


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("recipe", ["auto", "natural", "cifar-symmetric", "cifar-emp"])
def test_any_number_of_channels_becomes_views_that_an_encoder_takes(channels, recipe):
    data = from_tensors(Split(torch.from_numpy(noise(20, channels)).permute(0, 3, 1, 2)))
    assert len(data.mean) == len(data.std) == data.channels == channels
    assert (len(data.train), len(data.test), data.smallest, data.classes) == (18, 2, (12, 10), ())
    groups = VIEWS[domain(channels) if recipe == "auto" else recipe]
    (views,) = next(training_batches(data, groups, batch=2, seed=0)).views
    assert views.shape[2] == channels
    assert views.isfinite().all()
    if recipe == "natural":
        assert bool(left_out(groups, channels)) == (channels != 3)
    if recipe == "auto":
        assert build_backbone("resnet18", channels=channels, size=32)(views[0]).shape == (2, 512)
        assert build_backbone("resnet18", channels=channels, size=224)(views[0]).shape == (2, 512)


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_colour_of_other_than_three_channels_is_brightness_and_contrast_of_all_alike(channels):
    """Equal channels stay equal: nothing mixes them or treats one as red."""
    x = torch.from_numpy(noise(8, 1)).permute(0, 3, 1, 2).expand(-1, channels, -1, -1)
    data = from_tensors(Split(x))
    for batch in islice(training_batches(data, VIEWS["cifar-symmetric"], batch=4, seed=0), 3):
        (views,) = batch.views
        torch.testing.assert_close(views, views[:, :, :1].expand_as(views), rtol=1e-4, atol=1e-4)


def test_npz_with_labels_and_splits_as_medmnist_has_them(tmp_path):
    x, y = noise(12, 3), np.array([[5], [7], [9]] * 4, dtype=np.uint8)
    source = saved(tmp_path, train_images=x, train_labels=y, test_images=x[:6], test_labels=y[:6], val_images=x[:3])
    data = open_data(source)
    assert data.classes == ("5", "7", "9")
    assert data.train.labels.tolist() == [0, 1, 2] * 4
    assert torch.equal(data.train.images, torch.from_numpy(x).permute(0, 3, 1, 2))
    assert len(data.test) == 6
    assert "set.npz" in data.source
    plain = open_data(source, labels=False)
    assert plain.classes == ()
    assert plain.train.labels is None
    grey = open_data(source, channels=1)
    assert grey.channels == 1


def test_npy_of_grey_images_and_words_as_labels(tmp_path):
    np.save(tmp_path / "x.npy", noise(10, 1)[..., 0])
    data = open_data(str(tmp_path / "x.npy"))
    assert (data.channels, len(data.train), len(data.test), data.name) == (1, 9, 1, "x")
    words = open_data(saved(tmp_path, images=noise(10, 4), labels=np.array(["b", "a"] * 5)))
    assert words.classes == ("a", "b")
    assert torch.bincount(words.train.labels).tolist() in ([4, 5], [5, 4])


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (np.array([-1, 3, 5, -1]), ("3", "5"), [-1, 0, 1, -1]),
        (np.array([[np.nan], [-1], [2], [7]]), ("2.0", "7.0"), [-1, -1, 0, 1]),
        (np.array([b"cat", "Käfer".encode(), b"cat", b"-1"]), ("-1", "Käfer", "cat"), [2, 1, 2, 0]),
        (np.array([255, 0, 255, 0], np.uint8), ("0", "255"), [1, 0, 1, 0]),
        (np.array([-1, -1, -1, -1]), (), None),
    ],
)
def test_unknown_labels_are_no_class_and_bytes_are_words(tmp_path, labels, classes, numbers):
    x = noise(4, 3)
    data = open_data(saved(tmp_path, train_images=x, train_labels=labels, test_images=x, test_labels=labels))
    assert data.classes == classes
    for split in (data.train, data.test):
        assert (None if split.labels is None else split.labels.tolist()) == numbers


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"labels": -np.ones(8, int), "test_labels": -np.ones(8, int)}, "none is known"),
        ({"labels": np.arange(8)}, "labels and test_labels"),
        ({}, "labels and test_labels"),
    ],
)
def test_why_there_are_no_labels_is_said(tmp_path, labels, said):
    data = open_data(saved(tmp_path, images=noise(8, 3), test_images=noise(8, 3), **labels))
    assert (data.classes, data.train.labels) == ((), None)
    assert any(said in note for note in data.notes)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pictures": noise(4, 3)}, r"train_images or images.*pictures"),
        ({"images": noise(4, 3).astype(np.complex64)}, r"complex64"),
        ({"images": noise(4, 3) * np.nan}, r"finite"),
        ({"images": noise(4, 3), "test_images": noise(4, 3) / 255}, r"float64 and uint8"),
        ({"images": noise(4, 3), "test_images": np.moveaxis(noise(4, 3), -1, 1)}, r"NHWC.*NCHW.*--axes"),
        ({"images": np.zeros((9, 9, 40), np.uint8)}, r"NHW or HWN.*--axes"),
        ({"images": np.zeros((9, 12, 12, 12), np.uint8)}, r"NHWC or NCHW.*--axes"),
        ({"images": noise(1, 3)}, r"at least 2"),
        ({"images": noise(1, 3)[0]}, r"one image"),
        ({"images": noise(0, 3)}, r"must be images"),
        ({"images": np.array([None, "x"])}, r"cannot read .*set.npz"),
        ({"images": noise(4, 3), "labels": np.zeros(4, [("a", "u1"), ("b", "u1")])}, r"labels must be"),
        ({"images": noise(4, 3), "test_images": noise(4, 4)}, r"3 channels, held-out images 4"),
    ],
)
def test_arrays_that_are_no_images_are_named(tmp_path, arrays, said):
    with pytest.raises(UserError, match=said):
        open_data(saved(tmp_path, **arrays))


def test_what_has_no_meaning_for_arrays_is_refused(tmp_path):
    source = saved(tmp_path, images=noise(8, 4))
    with pytest.raises(UserError, match=r"channels 5.* 4"):
        open_data(source, channels=5)
    with pytest.raises(UserError, match="leave --cache out"):
        open_data(source, cache=8)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"cannot read .*broken.npz"):
        open_data(str(tmp_path / "broken.npz"))


def member(path, name: str, content: bytes, **changes) -> str:
    """A zip file of one member; ``changes`` are byte offsets in its local header and directory, and their values."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    raw = bytearray(path.read_bytes())
    for field, value in changes.items():
        local, central = {"flags": (6, 8), "method": (8, 10)}[field]
        raw[local] = raw[raw.index(b"PK\x01\x02") + central] = value
    path.write_bytes(raw)
    return str(path)


def npy(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_damaged_and_hostile_files_are_named(tmp_path):
    path, good = tmp_path / "x.npz", npy(noise(8, 3))
    assert len(open_data(member(path, "images.npy", good)).train) == 7
    huge = BytesIO()
    write_array_header_1_0(huge, {"descr": "|u1", "fortran_order": False, "shape": (3 * 2**50, 1, 1, 1)})
    for content, changes, said in (
        (huge.getvalue(), {}, "allocate"),
        (b"no array", {}, r"images.*\.npy"),
        (good, {"flags": 1}, "encrypted"),
        (good, {"method": 99}, "compression"),
        (good[:200], {}, ""),
    ):
        with pytest.raises(UserError, match=rf"(?s)cannot read .*x\.npz.*{said}"):
            open_data(member(path, "images.npy", content, **changes))
    whole = bytearray(Path(member(path, "images.npy", good)).read_bytes())
    for place in range(30, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with suppress(UserError):
            open_data(str(path))


def test_only_arrays_that_are_used_are_read_and_the_file_is_closed(tmp_path, monkeypatch):
    read, real = [], NpzFile.__getitem__
    monkeypatch.setattr(NpzFile, "__getitem__", lambda self, key: (read.append((self, key)), real(self, key))[1])
    x, y = noise(8, 3), np.arange(8) % 2
    open_data(saved(tmp_path, train_images=x, train_labels=y, val_images=x, test_images=x, masks=x))
    assert [key for _, key in read] == ["train_images", "train_labels", "test_images"]
    assert all(file.zip is None for file, _ in read)


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (Split(torch.zeros(4, 3, 8, 8)), "uint8 tensor"),
        (Split(torch.zeros(4, 8, 8, dtype=torch.uint8)), "uint8 tensor"),
        (Split(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)), "labels of 4 images"),
        (Split(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4)), "0 to 3.*2 names"),
    ],
)
def test_tensors_that_are_no_images_are_named(split, said):
    with pytest.raises(UserError, match=said):
        from_tensors(split, classes=("a", "b"))


def test_labels_that_are_not_one_for_each_image_are_refused(tmp_path):
    source = saved(tmp_path, images=noise(8, 3), labels=np.arange(5))
    with pytest.raises(UserError, match=r"8 images.* 5 "):
        open_data(source)
    assert open_data(source, labels=False).train.labels is None


@pytest.mark.parametrize("axes", ["NHWC", "NCHW", "HWCN"])
def test_axes_are_told_by_what_agrees(tmp_path, axes):
    x = noise(40, 3)
    source = saved(tmp_path, images=np.transpose(x, ["NHWC".index(axis) for axis in axes]), labels=np.arange(40) % 2)
    data = open_data(source)
    assert (len(data.train) + len(data.test), data.channels) == (40, 3)
    whole = {bytes(image.numpy().tobytes()) for split in (data.train, data.test) for image in split.images.contiguous()}
    assert whole == {np.ascontiguousarray(np.moveaxis(one, -1, 0)).tobytes() for one in x}


def test_axes_that_are_given_win_and_many_channels_need_them(tmp_path):
    cube = np.random.default_rng(0).integers(0, 256, (12, 12, 12, 12), dtype=np.uint8)
    source = saved(tmp_path, images=cube)
    first, last = (open_data(source, axes=axes, held_out=0.1) for axes in ("NCHW", "NHWC"))
    assert torch.equal(first.train.images, last.train.images.permute(0, 2, 3, 1).permute(0, 3, 1, 2)) is False
    assert torch.equal(last.train.images.permute(0, 2, 3, 1), first.train.images)
    bands = np.zeros((6, 30, 30, 20), np.uint8)
    with pytest.raises(UserError, match="--axes"):
        open_data(saved(tmp_path, images=bands))
    assert open_data(saved(tmp_path, images=bands), axes="NHWC").channels == 20


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [(np.uint16, 30_000, 34_000), (np.int16, -1000, 400), (np.float64, -0.2, 3e-4)]
)
def test_numbers_of_any_type_share_one_range(tmp_path, dtype, low, high):
    """Equal values are equal bytes in every image, from what was measured without the one glint, NaN and infinity."""
    share = np.random.default_rng(0).random((20, 24, 24))
    share[:, 0, :2] = 0, 1
    x = (low + share * (high - low)).astype(dtype)
    dark = x.copy()
    dark[10:] = (low + share[10:] / 4 * (high - low)).astype(dtype)
    dark[3, 3, 3] = 60_000 if dtype == np.uint16 else 30_000
    if dtype == np.float64:
        dark[4, 4, :3] = np.nan, np.inf, -np.inf
    data = open_data(saved(tmp_path, train_images=dark, test_images=dark))
    assert data.range == pytest.approx((low, high), rel=1e-5)
    assert (data.values, data.levels) == (np.dtype(dtype).name, 256)
    wanted = np.rint((dark.astype(np.float64) - data.range[0]) / (data.range[1] - data.range[0]) * 255)
    wanted = np.nan_to_num(wanted, nan=0, posinf=255, neginf=0).clip(0, 255)
    assert np.abs(data.test.images[:, 0].numpy().astype(float) - wanted).max() <= 1
    assert data.test.images[10:].max() < 70
    assert data.test.images[3, 0, 3, 3] == 255
    given = open_data(saved(tmp_path, train_images=dark, test_images=dark), range=(low, low + (high - low) / 2))
    assert given.test.images[:10].float().mean() > 1.4 * data.test.images[:10].float().mean()


def test_channels_of_different_scale_have_a_range_each_and_alike_ones_share_it(tmp_path):
    share = np.random.default_rng(0).random((20, 16, 16, 2))
    share[:, 0, 0], share[:, 0, 1] = 0, 1
    heights = (share * [1000, 3]).astype(np.float32)
    data = open_data(saved(tmp_path, images=heights))
    assert data.range == pytest.approx((0, 1000, 0, 3))
    assert data.train.images.flatten(2).amax(2).tolist() == [[255, 255]] * 18
    alike = open_data(saved(tmp_path, images=(share * [1000, 900]).astype(np.float32)))
    assert alike.range == pytest.approx((0, 1000))
    with pytest.raises(UserError, match=r"2 for each of 2"):
        open_data(saved(tmp_path, images=heights), range=(0, 1, 0, 1, 0, 1))


def test_a_range_that_leaves_few_levels_is_refused(tmp_path):
    x = np.random.default_rng(0).integers(0, 4096, (10, 16, 16), dtype=np.uint16)
    with pytest.raises(UserError, match=r"levels.*--range"):
        open_data(saved(tmp_path, images=x), range=(0, 2**18))
    assert open_data(saved(tmp_path, images=x), range=(0, 4095)).levels == 256
