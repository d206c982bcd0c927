"""What is trained on, what is held out, what counts as a class, and groups that stay whole."""

from __future__ import annotations

import io
import json

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


def table(kind: str, rows: list[dict[str, str]]) -> bytes:
    if kind == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer)
        return buffer.getvalue()
    if kind == "jsonl":
        return "\n".join(map(json.dumps, rows)).encode()
    return "\n".join(",".join(row) for row in [list(rows[0]), *(row.values() for row in rows)]).encode()


def rows_of(words: list[str]) -> list[dict[str, str]]:
    return [{"file_name": f"{i:02}.png", "label": "ab"[i % 2], "Split": word} for i, word in enumerate(words)]


SPLIT_WORDS = ["train", "Training", "test", "testing", "val", "unlabeled", "train", "test", "valid", "train"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("labels", [True, False])
def test_a_column_of_a_table_tells_the_splits(write, opened, kind, labels):
    for i in range(11):  # the last is in no row
        write(f"{i:02}.png", i)
    write(f"metadata.{kind}", content=table(kind, rows_of(SPLIT_WORDS)))
    data = opened(labels=labels)
    assert paths(data.test) == ["02.png", "03.png", "07.png"]
    assert paths(data.train) == [f"{i:02}.png" for i in (0, 1, 5, 6, 9, 10)]
    assert noted(data, "6 train, 3 test, 2 validation", "not used: validation")
    if labels:
        assert (data.classes, data.test.labels.tolist()) == (("a", "b"), [0, 1, 1])
        assert data.train.labels.tolist() == [0, 1, 1, 0, 1, -1]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_column_of_a_list_tells_the_splits(write, opened, tmp_path, kind):
    for i in range(6):
        write(f"{i:02}.png", i)
    rows = rows_of(["train", "validation", "train", "val", "train", "train"])
    data = open_data(str(write(f"list.{kind}", content=table(kind, rows))), memory_limit=0)
    assert (paths(data.train), paths(data.test)) == ([f"{i:02}.png" for i in (0, 2, 4, 5)], ["01.png", "03.png"])


def test_labelled_validation_images_are_held_out_where_test_images_have_no_labels(write, opened):
    for i in range(6):
        write(f"{i:02}.png", i)
    rows = rows_of(["train", "train", "test", "test", "val", "val"])
    rows = [row | {"label": "" if row["Split"] == "test" else row["label"]} for row in rows]
    write("labels.csv", content=table("csv", rows))
    assert paths(opened().test) == ["04.png", "05.png"]
    assert paths(opened(labels=False).test) == ["02.png", "03.png"]


def test_folders_are_the_splits_where_a_column_says_others(write, opened):
    for i in range(4):
        write(f"{'train' if i < 2 else 'test'}/{i:02}.png", i)
    write("metadata.csv", content=table("csv", rows_of(["test", "train", "test", "what"])))
    data = opened()
    assert (paths(data.train), paths(data.test)) == (["train/00.png", "train/01.png"], ["test/02.png", "test/03.png"])
    assert noted(data, "'split'", "not used")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_what_is_no_split_is_listed(write, opened, kind):
    for i in range(5):
        write(f"{i:02}.png", i)
    write(f"labels.{kind}", content=table(kind, rows_of(["train", "test", "", "fold 1", "fold 1"])))
    with pytest.raises(UserError, match=r"'split'.*nothing \(1\), fold 1 \(2\).*train.*test.*validation"):
        opened()


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
