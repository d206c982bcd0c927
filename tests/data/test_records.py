from __future__ import annotations

import gzip
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from pictures import picture

from frossl.core.types import UserError
from frossl.data import DATASETS, open_data, records
from frossl.data.wnids import fingerprint


def installed(tmp_path, monkeypatch) -> Path:
    """The directory of fashion-mnist's Debian package, for the time of a test."""
    monkeypatch.setattr(records, "DEBIAN_DIR", tmp_path / "debian")
    (tmp_path / "debian" / "fashion-mnist").mkdir(parents=True)
    return tmp_path / "debian" / "fashion-mnist"


@pytest.mark.parametrize("name", list(DATASETS))
def test_facts_are_complete(name):
    record = DATASETS[name]
    assert record.name == name
    assert len(record.mean) == len(record.std) == record.channels
    assert all(0 < value < 1 for value in record.mean + record.std)
    assert record.classes == () or len(set(record.classes)) == record.class_count
    assert min(record.train, record.test) > 0
    assert record.licence
    assert "://" in record.homepage


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("imagenet100", "d61d354b64beb3ce2c2c9cf04a874298362dc9fcd589e15ee34c5e4592145746"),
        ("tiny-imagenet", "add4bf0c8712ef7fb4bca98e3bbaf07101636c5db62cce486fd2af71cc11caf8"),
    ],
)
def test_lists_of_classes_are_those_that_are_in_use(name, digest):
    record = DATASETS[name]
    assert len(record.ids()) == record.class_count
    assert fingerprint(record.ids(), record.ids(), "known") == (
        f"SHA-256 of the {record.class_count} sorted class names: {digest} (known)"
    )


def idx(folder: Path, part: str, images: np.ndarray, labels: np.ndarray) -> tuple[Path, Path]:
    files = folder / f"{part}-images-idx3-ubyte.gz", folder / f"{part}-labels-idx1-ubyte.gz"
    for file, array in zip(files, (images, labels), strict=True):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        file.write_bytes(gzip.compress(header + array.tobytes()))
    return files


IMAGES, LABELS = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4), np.array([7, 9], np.uint8)


def test_damaged_idx_files(tmp_path, monkeypatch):
    folder = installed(tmp_path, monkeypatch)
    idx(folder, "t10k", IMAGES, LABELS)
    images, labels = idx(folder, "train", IMAGES, LABELS)
    whole = images.read_bytes()
    for damaged, said in (
        (b"", "."),
        (b"text", "(?i)not a gzipped file"),
        (whole[:-9], "end-of-stream"),
        (gzip.compress(b"text"), "begins with 74657874"),
        (gzip.compress(gzip.decompress(whole)[:-1]), "cannot reshape"),
        (labels.read_bytes(), "train has images"),
        (idx(tmp_path, "short", IMAGES[:1], LABELS)[0].read_bytes(), r"images \(1, 3, 4\) and labels \(2,\)"),
    ):
        images.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"{said}.*install it again"):
            open_data("fashion-mnist")


def test_fashion_mnist_from_debian(tmp_path, monkeypatch):
    folder = installed(tmp_path, monkeypatch)
    idx(folder, "train", IMAGES, LABELS)
    idx(folder, "t10k", IMAGES[:1], LABELS[:1])
    data = open_data("fashion-mnist")
    assert torch.equal(data.train.images, torch.from_numpy(IMAGES)[:, None])
    assert data.train.labels.dtype == torch.int64
    assert data.train.labels.tolist() == [7, 9]
    assert data.test.labels.tolist() == [7]
    assert "Debian" in data.source
    assert "60,000 and 10,000" in data.notes[0]
    colour = open_data("fashion-mnist", channels=3, labels=False)
    assert torch.equal(colour.train.images, data.train.images.expand(-1, 3, -1, -1))
    assert len(colour.mean) == 3
    assert (colour.classes, colour.train.labels) == ((), None)


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "stl10"])
def test_a_cache_of_what_is_held_in_memory_is_refused_before_it_is_fetched(name, tmp_path):
    with pytest.raises(UserError, match=f"^{name}.*held in memory.*--cache"):
        open_data(name, data_dir=tmp_path / "data", cache=16)
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(not (records.DEBIAN_DIR / "fashion-mnist").exists(), reason="the Debian package is not installed")
def test_fashion_mnist_as_installed():
    data = open_data("fashion-mnist")
    assert data.notes == ()
    pixels = data.train.images.float() / 255
    assert pixels.mean().item() == pytest.approx(data.mean[0], abs=1e-3)
    assert pixels.std().item() == pytest.approx(data.std[0], abs=1e-3)


def test_fashion_mnist_that_cannot_be_had_names_the_package(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise RuntimeError("no route to host")

    monkeypatch.setattr(records, "DEBIAN_DIR", tmp_path / "nowhere")
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", no_network)
    with pytest.raises(UserError, match=r"no route.*apt-get install dataset-fashion-mnist"):
        open_data("fashion-mnist", data_dir=tmp_path)


class Downloaded:
    """Stands in for a torchvision data set."""

    def __init__(self, data, labels, key):
        self.data = data
        setattr(self, key, labels)


@pytest.mark.parametrize(
    ("name", "class_name", "key", "shape"),
    [
        ("cifar10", "CIFAR10", "targets", (4, 32, 32, 3)),
        ("cifar100", "CIFAR100", "targets", (4, 32, 32, 3)),
        ("stl10", "STL10", "labels", (4, 3, 96, 96)),
        ("svhn", "SVHN", "labels", (4, 3, 32, 32)),
    ],
)
def test_torchvision_layouts(name, class_name, key, shape, monkeypatch, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    monkeypatch.setattr(
        torchvision.datasets, class_name, lambda root, download, **which: Downloaded(pixels, [0, 1, -1, 2], key)
    )
    data = open_data(name, data_dir=tmp_path)
    channel_first = pixels if shape[1] == 3 else pixels.transpose(0, 3, 1, 2)
    assert np.array_equal(data.train.images.numpy(), channel_first)
    assert data.smallest == DATASETS[name].size
    assert data.train.labels.tolist() == [0, 1, -1, 2]
    grey = open_data(name, data_dir=tmp_path, channels=1)
    luma = (channel_first * np.array([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdims=True)
    assert np.abs(grey.train.images.numpy() - luma).max() <= 0.51
    assert len(grey.mean) == 1


def test_failed_download_says_what_to_do(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise ConnectionError("connection refused")

    monkeypatch.setattr(socket, "setdefaulttimeout", lambda seconds: pytest.fail("is not for a library to set"))

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    with pytest.raises(UserError, match=r"cannot get cifar10 .*connection refused.*Check the network.* as DATA"):
        open_data("cifar10", data_dir=tmp_path)


def wnids(count: int) -> list[str]:
    return [f"n{i:08}" for i in range(count)]


def test_tiny_imagenet_as_unpacked(write, tmp_path):
    """The original layout: class folders with an inner images/, and a flat val/ with annotations."""
    for i, name in enumerate(wnids(200)):
        write(f"tiny-imagenet-200/train/{name}/images/{name}_0.png", i, size=(2, 2))
        write(f"tiny-imagenet-200/val/images/val_{i}.png", i, size=(2, 2))
    write("tiny-imagenet-200/test/images/test_0.png", content=b"never read")
    lines = [f"val_{i}.png\t{name}\t0\t0\t1\t1" for i, name in enumerate(reversed(wnids(200)))]
    annotations = write("tiny-imagenet-200/val/val_annotations.txt", content="\n".join(lines).encode())
    data = open_data("tiny-imagenet", data_dir=tmp_path / "set")
    assert data.classes == tuple(wnids(200))
    assert data.train.labels.tolist() == list(range(200))
    # Files are in the order of their names, so val_10 comes before val_2.
    order = sorted(range(200), key=lambda i: f"val_{i}.png")
    assert data.test.labels.tolist() == [199 - i for i in order]
    assert data.mean == DATASETS["tiny-imagenet"].mean
    assert any("val_annotations" in note for note in data.notes)
    annotations.write_text("\n".join(lines[1:]))
    with pytest.raises(UserError, match=r"val_annotations.*val/images/val_0.png"):
        open_data("tiny-imagenet", data_dir=tmp_path / "set")


def test_imagenet100_checks_and_fingerprints_its_classes(write, tmp_path):
    for name in wnids(100):
        write(f"imagenet100/train/{name}/0.png", size=(2, 2))
        write(f"imagenet100/val/{name}/0.png", size=(2, 3))
    data = open_data("imagenet100", data_dir=tmp_path / "set")
    assert data.classes == tuple(wnids(100))
    assert not data.train.in_memory
    assert any("SHA-256 of the 100" in note for note in data.notes)
    extra = write("imagenet100/train/dogs/0.png")
    with pytest.raises(UserError, match=r"101, 1 .*\['dogs'\]"):
        open_data("imagenet100", data_dir=tmp_path / "set")
    extra.unlink()
    write("imagenet100/val/n99999999/0.png")
    assert any("n99999999" in note for note in open_data("imagenet100", data_dir=tmp_path / "set").notes)


def test_prepared_folder_that_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"imagenet100.*must be prepared"):
        open_data("imagenet100", data_dir=tmp_path)


def test_imagenette_from_its_folder(tmp_path):
    root = tmp_path / "imagenette2-160"
    for split in ("train", "val"):
        for i, name in enumerate(sorted(torchvision.datasets.Imagenette._WNID_TO_CLASS)):
            (root / split / name).mkdir(parents=True)
            picture(i, (8, 8 + i)).save(root / split / name / "0.JPEG")
    data = open_data("imagenette", data_dir=tmp_path)
    known = torchvision.datasets.Imagenette._WNID_TO_CLASS
    assert data.classes == tuple(known[name][0] for name in sorted(known))
    assert data.train.labels.tolist() == list(range(10))
    assert data.largest == (8, 17)
