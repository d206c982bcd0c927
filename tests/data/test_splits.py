"""What is trained on, what is held out, what counts as a class, and groups that stay whole."""

from __future__ import annotations

import numpy as np
import pytest

from frossl.core.types import UserError
from frossl.data import open_data
from frossl.data.build import hold_out
from frossl.data.options import Opening


@pytest.fixture
def opened(tmp_path):
    return lambda **options: open_data(str(tmp_path / "set"), memory_limit=0, **options)


def paths(split) -> list[str]:
    images = split.images
    return [images.sources.name(int(i)) for i in images.index]


def noted(data, *words: str) -> bool:
    return any(all(word in note for word in words) for note in data.notes)


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_flat_held_out_images_make_way_for_labelled_ones(write, opened, held_out):
    for i in range(20):
        write(f"train/{'ab'[i % 2]}/{i}.png", i)
    for i in range(4):
        write(f"{held_out}/{i}.png", i)
    data = opened()
    assert (len(data.train), data.test.labels.tolist(), data.classes) == (18, [0, 1], ("a", "b"))
    assert all(path.startswith("train/") for path in paths(data.test))
    assert noted(data, f"{held_out}/ has no labels", "train/")
    assert (len(opened(labels=False).train), len(opened(labels=False).test)) == (20, 4)


def test_unlabelled_training_images_beside_labelled_held_out_ones_go_on_without_labels(write, opened):
    for path in ("train/0.png", "train/1.png", "val/a/0.png", "val/b/0.png"):
        write(path)
    data = opened()
    assert (len(data.train), len(data.test), data.classes, data.targets) == (2, 2, (), None)


def test_a_held_out_split_of_one_class_is_compared(write, opened):
    for path in ("train/a/0.png", "train/b/0.png", "val/b/0.png"):
        write(path)
    assert (opened().classes, opened().test.labels.tolist()) == (("a", "b"), [1])


def test_unlabelled_images_are_trained_on_too(write, opened):
    for i in range(3):
        for path in ("train/a", "train/b", "test/a", "test/b", "unlabeled"):
            write(f"{path}/{i}.png", i)
    data = opened()
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, -1, -1, -1]
    assert paths(data.train)[-1] == "unlabeled/2.png"
    assert len(data.test) == 6
    assert noted(data, "3 images of unlabeled/")
    assert len(opened(labels=False).train) == 9


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{}.png", "masks/{}.png"),
        ("train/img/{}.png", "train/mask/{}.png"),
        ("images/train/{}.png", "annotations/train/{}.png"),
        ("JPEGImages/{}.png", "SegmentationClass/{}.png"),
        ("train/{}.png", "train_masks/{}.png"),
        ("train/images/{}.png", "train/images_gt/{}.png"),
        ("benign ({}).png", "benign ({})_mask.png"),
        ("case/{}.tif", "case/{}_mask_1.tif"),
    ],
)
def test_masks_beside_images_are_left_out(write, opened, image, mask):
    for i in range(4):
        write(image.format(i), i)
        write(mask.format(i), i, mode="L")
    data = opened()
    assert sorted(paths(data.train) + paths(data.test)) == [image.format(i) for i in range(4)]
    assert (data.classes, data.channels) == ((), 3)
    assert noted(data, "4 masks")


def test_below_a_folder_of_images_are_splits_and_classes(write, opened):
    for split in ("train", "val"):
        for kind in ("cat", "dog"):
            write(f"images/{split}/{kind}/0.png")
            write(f"labels/{split}/{kind}/0.png")
    data = opened()
    assert (len(data.train), len(data.test), data.classes) == (2, 2, ("cat", "dog"))


def test_folders_that_are_called_like_masks_alone_are_classes(write, opened):
    for path in ("mask/0.png", "face/0.png", "mask/1.png", "face_mask/1.png"):
        write(path)
    assert opened().classes == ("face", "face_mask", "mask")


def test_groups_stay_whole(write, opened):
    for patient in range(10):
        for i in range(3):
            write(f"{'ab'[patient % 2]}/p{patient}_{i}.png", i, size=(2, 2))
    data = opened(group=r"p(\d+)_", held_out=0.2)
    assert len(data.test) == 6
    patients = {path[2:4] for path in paths(data.test)}
    assert len(patients) == 2
    assert not patients & {path[2:4] for path in paths(data.train)}
    assert sorted(data.test.labels.tolist()) == [0, 0, 0, 1, 1, 1]
    assert noted(data, "2 of 10 groups")
    assert paths(opened(group=r"p(\d+)_", held_out=0.2).test) == paths(data.test)
    assert {paths(opened(group=r"p\d+", seed=seed).test)[0] for seed in range(4)} != {paths(data.test)[0]}


def test_groups_may_be_a_column(write, opened):
    for i in range(12):
        write(f"{i}.png", i, size=(2, 2))
    rows = "".join(f"{i}.png,{i // 4},{i % 2}\n" for i in range(11))
    write("metadata.csv", content=f"file_name,video,label\n{rows}".encode())
    data = opened(group="video", held_out=0.3)
    held = {int(path[:-4]) // 4 for path in paths(data.test)}
    assert len(held & {int(path[:-4]) // 4 for path in paths(data.train) if path != "11.png"}) == 0
    assert data.classes == ("0", "1")
    assert noted(data, "1 images belong to no group", "11.png")


def test_groups_that_cannot_be_held_out_are_refused(write, opened):
    for i in range(4):
        write(f"one_{i}.png", i)
    for group, said in (("one", "one group"), ("patient", "no name"), ("(", "no regular expression")):
        with pytest.raises(UserError, match=f"--group.*{said}"):
            opened(group=group)


def test_groups_on_both_sides_of_a_split_are_counted(write, opened):
    for path in ("train/p1_0.png", "train/p2_0.png", "test/p2_1.png", "test/p3_0.png"):
        write(path)
    assert noted(opened(group="p[0-9]"), "1 groups have images in both splits")


@pytest.mark.parametrize(("known", "unknown"), [("train", "test"), ("test", "train")])
def test_where_one_given_split_has_groups_those_of_the_other_are_said_to_be_unknown(write, opened, known, unknown):
    for i in range(4):
        write(f"train/video{i}.png", i)
        write(f"test/video{i}.png", i)
    rows = "".join(f"video{i}.png,{i // 2},{i % 2}\n" for i in range(4))
    write(f"{known}/metadata.csv", content=f"file_name,video,label\n{rows}".encode())
    rows = "".join(f"video{i}.png,{i % 2}\n" for i in range(4))
    write(f"{unknown}/metadata.csv", content=f"file_name,label\n{rows}".encode())
    data = opened(group="video")
    assert (len(data.train), len(data.test)) == (4, 4)
    assert noted(data, "--group", f"{unknown}/ are not known")
    with pytest.raises(UserError, match="--group vidoe"):
        opened(group="vidoe")


@pytest.mark.parametrize("sizes", [[1, 99], [50, 50], [7, 7, 7, 10, 7, 7, 7], [3] * 30, [1] * 500 + [100]])
def test_share_of_groups_is_as_near_as_they_allow(sizes):
    groups = np.repeat(np.arange(len(sizes)), sizes).astype(str)
    (train, held), _ = hold_out(len(groups), None, Opening(held_out=0.2), groups)
    assert not {*groups[train]} & {*groups[held]}
    possible = {0}
    for size in sizes:
        possible |= {total + size for total in possible}
    wanted = round(0.2 * len(groups))
    assert abs(len(held) - wanted) <= max(1, min(abs(total - wanted) for total in possible - {0, len(groups)}))
