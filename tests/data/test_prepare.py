"""ImageNet-100 and Tiny ImageNet from the layouts in which people have them."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from pictures import encoded, picture
from scipy.io import savemat

from frossl.core.types import UserError
from frossl.data import DATASETS, open_data
from frossl.data import prepare as preparing
from frossl.data.prepare import prepare
from frossl.data.trees import Tree
from frossl.data.wnids import FIRST, HELD_OUT, imagenet_ids

IDS = {name: DATASETS[name].ids() for name in ("imagenet100", "tiny-imagenet")}
ORDER = [FIRST, *reversed(IDS["imagenet100"])]
"""Classes of the held-out images of a small ImageNet, of which the first is not in ImageNet-100."""
PIXELS = encoded(picture(size=(4, 4)), "JPEG")


def fill(root: Path, paths: list[str]) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(PIXELS)
    return root


def tiny(root: Path) -> Path:
    """Tiny ImageNet as in its archive, with one image a class in each split."""
    ids = IDS["tiny-imagenet"]
    fill(root, [f"train/{wnid}/images/{wnid}_0.JPEG" for wnid in ids])
    fill(root, [f"val/images/val_{i}.JPEG" for i in range(200)] + ["test/images/test_0.JPEG"])
    for wnid in ids:
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t3\t3\n")
    lines = [f"val_{i}.JPEG\t{wnid}\t0\t0\t3\t3\n" for i, wnid in enumerate(reversed(ids))]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(ids))
    return root


def imagenet(root: Path, flat: bool = False) -> Path:
    """ImageNet with two images a class of ImageNet-100, and some of another; held-out ones in class folders or not."""
    fill(root, [f"train/{wnid}/{wnid}_{i}.JPEG" for wnid in ORDER for i in (7, 12)])
    folders = [f"val/{'' if flat else f'{wnid}/'}" for wnid in ORDER]
    return fill(root, [f"{folder}{HELD_OUT.format(i)}.JPEG" for i, folder in enumerate(folders, 1)])


def check(made: preparing.Prepared, name: str, train: int) -> None:
    """The folder holds each class once, and its name opens it, with the right class of each held-out image."""
    ids, folder = IDS[name], made.folder
    for split in ("train", "val"):
        assert sorted(os.listdir(folder / split)) == sorted(ids)
    data = open_data(name, data_dir=folder.parent)
    assert data.classes == ids
    assert np.bincount(data.train.labels).tolist() == [train] * len(ids)
    assert np.bincount(data.test.labels).tolist() == [1] * len(ids)
    if name == "imagenet100":
        assert {path.parent.name: path.stem for path in folder.glob("val/*/*")} == {
            wnid: HELD_OUT.format(i) for i, wnid in enumerate(ORDER, 1) if wnid in ids
        }
    else:
        images = {path.parent.name: path.name for path in folder.glob("val/*/*")}
        assert images == {wnid: f"val_{199 - i}.JPEG" for i, wnid in enumerate(ids)}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.fixture(autouse=True)
def no_flush(monkeypatch):
    """What is durable is tested beside the function that sees to it; here it would only take time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "sync", lambda: None)


@pytest.fixture(scope="module")
def have(tmp_path_factory):
    """ImageNet in class folders, for tests that leave it as it is."""
    return imagenet(tmp_path_factory.mktemp("have"))


@pytest.fixture(scope="module")
def tiny_zip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zip")
    tiny(folder / "have" / "tiny-imagenet-200")
    with ZipFile(folder / "tiny-imagenet-200.zip", "w") as archive:
        for path in sorted((folder / "have").rglob("*")):
            archive.write(path, path.relative_to(folder / "have"))
    return folder / "tiny-imagenet-200.zip"


@pytest.fixture
def to(tmp_path) -> Callable[[str], Path]:
    return lambda name: tmp_path / "data" / DATASETS[name].folder


@pytest.mark.parametrize("packed", ["folder", "one level down", "zip"])
def test_tiny_imagenet_as_it_is_downloaded(tiny_zip, to, packed):
    folder = tiny_zip.parent / "have"
    source = {"folder": folder / "tiny-imagenet-200", "one level down": folder, "zip": tiny_zip}[packed]
    made = prepare("tiny-imagenet", source, to("tiny-imagenet"))
    check(made, "tiny-imagenet", train=1)
    assert ("copies" in made.facts[0]) is (packed == "zip")
    wnid = IDS["tiny-imagenet"][0]
    assert made.odd[0].startswith(f"train/: every class of tiny-imagenet has 500 images, but here 200 ({wnid} has 1")


@pytest.mark.parametrize("below", ["", "ILSVRC/Data/CLS-LOC"])
def test_imagenet_100_from_class_folders(tmp_path, to, below):
    imagenet(tmp_path / below)
    made = prepare("imagenet100", tmp_path, to("imagenet100"))
    check(made, "imagenet100", train=2)
    assert made.odd[0] == "train/: 200 images, where imagenet100 is known to have 126,689"


def devkit(root: Path) -> None:
    """Numbers from 1 in an order that is not sorted, explained by a table for MATLAB."""
    root.mkdir(parents=True)
    order = ORDER[50:] + ORDER[:50]
    synsets = np.zeros(len(order), dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("words", object)])
    synsets["ILSVRC2012_ID"], synsets["WNID"], synsets["words"] = range(1, len(order) + 1), order, "a word"
    savemat(root / "meta.mat", {"synsets": synsets})
    numbers = [str(order.index(wnid) + 1) for wnid in ORDER]
    (root / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(numbers))


def flat_labels(kind: str, root: Path) -> None:
    names = [HELD_OUT.format(i) for i in range(1, len(ORDER) + 1)]
    if kind == "devkit":
        devkit(root / "ILSVRC2012_devkit_t12" / "data")
    elif kind == "kaggle":
        rows = [f"{name},{wnid} 1 2 3 4 {wnid} 5 6 7 8 " for name, wnid in zip(names, ORDER, strict=True)]
        (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(rows))
    elif kind == "caffe":
        number = {wnid: i for i, wnid in imagenet_ids().items()}
        rows = [f"{name}.JPEG {number[wnid]}" for name, wnid in zip(names, ORDER, strict=True)]
        (root / "val" / "val.txt").write_text("\n".join(rows))
    else:
        (root / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(ORDER))


@pytest.mark.parametrize("kind", ["devkit", "kaggle", "caffe", "synsets"])
def test_imagenet_100_from_a_flat_val_and_a_file_of_labels(tmp_path, to, kind):
    below = "ILSVRC/Data/CLS-LOC" if kind == "kaggle" else ""
    imagenet(tmp_path / "have" / below, flat=True)
    flat_labels(kind, tmp_path / "have")
    made = prepare("imagenet100", tmp_path / "have", to("imagenet100"))
    check(made, "imagenet100", train=2)
    assert any("held-out labels come from" in fact for fact in made.facts)


def test_a_flat_val_takes_labels_from_a_file_that_is_given_and_says_so_without(tmp_path, to):
    have = imagenet(tmp_path / "have", flat=True)
    with pytest.raises(UserError, match=r"no file tells.*--labels FILE"):
        prepare("imagenet100", have, to("imagenet100"))
    (tmp_path / "mine.txt").write_text("\n".join(ORDER))
    check(prepare("imagenet100", have, to("imagenet100"), labels=tmp_path / "mine.txt"), "imagenet100", train=2)


def test_labels_are_refused_where_held_out_images_lie_in_class_folders(tmp_path, have, to):
    (tmp_path / "mine.txt").write_text("\n".join(ORDER))
    with pytest.raises(UserError, match="no images beside each other, for which --labels is meant"):
        prepare("imagenet100", have, to("imagenet100"), labels=tmp_path / "mine.txt")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([f"{HELD_OUT.format(i)} {i + 65}" for i in range(1, 102)], f"first held-out image .* but it is of {FIRST}"),
        ([f"{HELD_OUT.format(i)} {wnid}" for i, wnid in enumerate(ORDER[:-1], 1)], r"no class for 1 \(val/ILSVRC"),
        (["1", "2", "3"], "class '1'.*meta.mat"),
        ([], "is empty"),
    ],
    ids=["numbered from 1", "one short", "devkit without its table", "empty"],
)
def test_labels_that_cannot_be_right_are_refused(tmp_path, to, rows, says):
    have = imagenet(tmp_path / "have", flat=True)
    (have / "val.txt").write_text("\n".join(rows))
    with pytest.raises(UserError, match=says):
        prepare("imagenet100", have, to("imagenet100"))
    assert not to("imagenet100").exists()


def test_missing_classes_are_named_and_nothing_is_made(tmp_path, to):
    have, (first, second, *_) = imagenet(tmp_path / "have"), IDS["imagenet100"]
    shutil.rmtree(have / "train" / first)
    for path in (have / "val" / second).iterdir():
        path.unlink()
    with pytest.raises(UserError, match=f"2 of the 100 classes.*none in train/ of {first}; in val/ of {second}[.]"):
        prepare("imagenet100", have, to("imagenet100"))
    assert not to("imagenet100").parent.exists()


@pytest.mark.parametrize("mode", ["auto", "link", "symlink", "copy"])
def test_images_are_linked_or_copied(have, to, mode):
    made = prepare("imagenet100", have, to("imagenet100"), mode=mode)
    for old in (have / "train" / IDS["imagenet100"][0]).iterdir():
        new = made.folder / old.relative_to(have)
        assert new.read_bytes() == old.read_bytes()
        assert new.is_symlink() is (mode == "symlink")
        assert new.samefile(old) is (mode != "copy")


def test_where_no_link_can_be_made_images_are_copied_which_is_said_before(have, to, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    said = []
    monkeypatch.setattr(os, "link", refuse)
    made = prepare("imagenet100", have, to("imagenet100"), log=said.append)
    assert "symbolic links" in made.facts[0]
    shutil.rmtree(made.folder)
    with pytest.raises(UserError, match=r"could not make a link of .*cross-device.*--mode copy"):
        prepare("imagenet100", have, to("imagenet100"), mode="link")
    monkeypatch.setattr(os, "symlink", refuse)
    made = prepare("imagenet100", have, to("imagenet100"), log=said.append)
    assert "copies" in made.facts[0]
    assert said[0].startswith("copying 300 images, ")
    check(made, "imagenet100", train=2)


def test_a_disk_that_is_too_full_or_fills_up_leaves_nothing(have, to, monkeypatch):
    put = Tree.put

    def full(tree, path, target, mode):
        if target.name.endswith("12.JPEG"):
            raise OSError(errno.ENOSPC, "No space left on device")
        put(tree, path, target, mode)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
        with pytest.raises(UserError, match=r"copies need [0-9.e-]+ GB, and .* has 0 GB free"):
            prepare("imagenet100", have, to("imagenet100"), mode="copy")
    monkeypatch.setattr(Tree, "put", full)
    with pytest.raises(UserError, match=r"No space left on device. Nothing was made"):
        prepare("imagenet100", have, to("imagenet100"))
    assert not list(to("imagenet100").parent.iterdir())


def test_a_damaged_zip(tmp_path, tiny_zip, to):
    source, whole = tmp_path / "tiny.zip", tiny_zip.read_bytes()
    place = whole.rindex(PIXELS)
    for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]):
        source.write_bytes(damaged)
        with pytest.raises(UserError, match=r"cannot read .*tiny.zip: .*get it again"):
            prepare("tiny-imagenet", source, to("tiny-imagenet"))
        assert not to("tiny-imagenet").exists()
    with pytest.raises(UserError, match=r"--mode link: .* zip can only be copied"):
        prepare("tiny-imagenet", tiny_zip, to("tiny-imagenet"), mode="link")


def test_what_is_there_stays_and_a_name_that_is_not_found_is_refused(tmp_path, have, to):
    with pytest.raises(UserError, match=r"called imagenet100: give --to .*/place/imagenet100"):
        prepare("imagenet100", have, tmp_path / "place")
    to("imagenet100").mkdir(parents=True)
    (to("imagenet100") / "mine").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        prepare("imagenet100", have, to("imagenet100"))
    assert [path.name for path in to("imagenet100").iterdir()] == ["mine"]


@pytest.mark.parametrize("source", ["nothing", "a file.tar", "other"])
def test_a_source_that_is_none_of_these(tmp_path, to, source):
    fill(tmp_path / "other", ["cats/1.JPEG"])
    (tmp_path / "a file.tar").write_text("archive")
    with pytest.raises(UserError, match=r"no folder and no .zip file|no train/ with val/.*holds 1 \(cats\)"):
        prepare("imagenet100", tmp_path / source, to("imagenet100"))


def test_classes_of_ones_own(tmp_path, have, to):
    """Another list in circulation: one class is not in the usual one, which is said now and at each opening."""
    mine = tmp_path / "mine.txt"
    mine.write_text("# my classes\n" + "\n".join([FIRST, *IDS["imagenet100"][1:]]))
    made = prepare("imagenet100", have, to("imagenet100"), classes=mine)
    data = open_data("imagenet100", data_dir=made.folder.parent)
    for said in (made.facts, data.notes):
        assert any(f"not in the ImageNet-100 list of CMC and solo-learn: 1 ({FIRST})" in fact for fact in said)
    shutil.rmtree(made.folder)
    for content, says in ((FIRST, "has 1 classes, and imagenet100 has 100"), ("cat dog", "holds 'cat'")):
        mine.write_text(content)
        with pytest.raises(UserError, match=says):
            prepare("imagenet100", have, to("imagenet100"), classes=mine)
