from __future__ import annotations

import json
import pickle
import sys

import pytest
import torch
from pictures import encoded, picture

from frossl.core.types import UserError
from frossl.data import open_data

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def rows(count: int, start: int = 0, broken: tuple[int, ...] = (), **options):
    cells = [{"bytes": encoded(picture(start + i, **options)), "path": None} for i in range(count)]
    for i in broken:
        cells[i] = {"bytes": b"no image", "path": "some/name.png"}
    return cells


@pytest.fixture
def parquet(tmp_path):
    def save(name: str, images: list, labels: list | None = None, names: list[str] | None = None) -> str:
        features = {"image": datasets.Image()}
        if labels is not None:
            features["label"] = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
        columns = {"image": images} | ({"label": labels} if labels is not None else {})
        (tmp_path / "set").mkdir(exist_ok=True)
        datasets.Dataset.from_dict(columns, datasets.Features(features)).to_parquet(tmp_path / "set" / name)
        return str(tmp_path / "set")

    return save


@pytest.fixture
def opened(tmp_path):
    return lambda source, **options: open_data(source, data_dir=tmp_path / "data", **options)


def test_two_splits_with_class_names(parquet, opened):
    parquet("train-00000-of-00002.parquet", rows(4), [0, 1, 0, 1], ["cat", "dog"])
    parquet("train-00001-of-00002.parquet", rows(2, 4), [1, -1], ["cat", "dog"])
    data = opened(parquet("validation-00000-of-00001.parquet", rows(2, 6), [1, 0], ["cat", "dog"]))
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 1, 0, 1, 1, -1]
    assert data.test.labels.tolist() == [1, 0]
    assert data.train.images.shape == (6, 3, 12, 16)
    expected = torch.tensor(list(picture(4).tobytes())).reshape(12, 16, 3).permute(2, 0, 1)
    assert torch.equal(data.train.images[4].long(), expected)


def test_single_file_is_split_by_seed(parquet, opened):
    folder = parquet("anything.parquet", rows(10))
    data = opened(folder + "/anything.parquet")
    assert (len(data.train), len(data.test), data.classes) == (9, 1, ())
    assert torch.equal(opened(folder).test.images, data.test.images)


def test_train_prefers_test_and_notes_the_rest(parquet, opened):
    for name in ("train", "test", "val"):
        folder = parquet(f"{name}.parquet", rows(2))
    assert any("not used: val.parquet" in note for note in opened(folder).notes)


def test_labels_without_names(parquet, opened):
    data = opened(parquet("train.parquet", rows(6), [7, 3, None, 3, 7, 3]), held_out=0.2)
    assert data.classes == ("3", "7")
    assert sorted(torch.cat([data.train.labels, data.test.labels]).tolist()) == [-1, 0, 0, 0, 1, 1]
    assert opened(str(data.source).split()[-1], labels=False).train.labels is None


@pytest.mark.parametrize(
    ("values", "classes", "numbers"),
    [
        ([7.0, float("nan"), 3.0, float("nan")], ("3.0", "7.0"), [1, -1, 0, -1]),
        ([7, -1, 3, -1], ("3", "7"), [1, -1, 0, -1]),
        ([b"cat", None, b"ant", b"cat"], ("ant", "cat"), [1, -1, 0, 1]),
    ],
)
def test_unknown_labels_are_no_class_and_bytes_are_words(tmp_path, opened, values, classes, numbers):
    for split in ("train", "test"):
        table = datasets.Dataset.from_dict({"image": rows(4), "label": values})
        table.to_parquet(tmp_path / "set" / f"{split}.parquet")
    data = opened(str(tmp_path / "set"))
    assert data.classes == classes
    assert data.train.labels.tolist() == data.test.labels.tolist() == numbers


def test_the_same_classes_in_another_order_are_the_same_labels(parquet, opened):
    parquet("train.parquet", rows(3), [0, 1, -1], ["cat", "dog"])
    data = opened(parquet("test.parquet", rows(3), [0, 1, -1], ["dog", "cat"]))
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 1, -1]
    assert data.test.labels.tolist() == [1, 0, -1]


@pytest.mark.parametrize("values", [[[[0]], [[1]]], [{"a": 1}, {"a": 2}]])
def test_labels_that_are_not_one_for_each_image_are_refused(tmp_path, opened, values):
    file = tmp_path / "train.parquet"
    datasets.Dataset.from_dict({"image": rows(2), "label": values}).to_parquet(file)
    with pytest.raises(UserError, match=r"label.*one number"):
        opened(str(file))
    assert len(opened(str(file), labels=False).train) == 1


def test_class_names_that_do_not_fit_are_named(tmp_path, opened):
    image = pa.array(rows(2), pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    for names, said in ((["cat", "dog"], r"1 to 2.*2 names"), (["cat", "cat"], "duplicated")):
        about = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}}}
        table = pa.table({"image": image, "label": [1, 2]}).replace_schema_metadata({"huggingface": json.dumps(about)})
        pq.write_table(table, tmp_path / f"{names[1]}.parquet")
        with pytest.raises(UserError, match=said):
            opened(str(tmp_path / f"{names[1]}.parquet"))


def test_different_classes_stop(parquet, opened):
    parquet("train.parquet", rows(2), [0, 1], ["cat", "dog"])
    folder = parquet("test.parquet", rows(2), [0, 1], ["cat", "cow"])
    with pytest.raises(UserError, match=r"training.*: dog;.*held-out.*: cow"):
        opened(folder)


def test_lazy_equals_in_memory_and_pickles_small(parquet, opened):
    folder = parquet("train.parquet", rows(40, size=(64, 64)))
    eager, lazy = opened(folder), opened(folder, memory_limit=0)
    pickled = pickle.dumps(lazy.train.images)
    assert len(pickled) < 40 * 1000
    copy = pickle.loads(pickled)
    assert all(torch.equal(copy[i], eager.train.images[i]) for i in range(len(copy)))


def test_broken_rows_are_skipped_and_named(parquet, opened):
    images = [*rows(40, broken=(3,)), None]
    data = opened(parquet("train.parquet", images))
    assert [(skip.path, skip.reason.split()[0]) for skip in data.skipped] == [
        ("some/name.png", "not"),
        ("train.parquet:40", "the"),
    ]
    assert len(data.train) + len(data.test) == 39


def test_too_many_broken_rows_stop(parquet, opened):
    with pytest.raises(UserError, match="2 of 10 images"):
        opened(parquet("train.parquet", rows(10, broken=(1, 2))))


def test_damaged_file_and_missing_column(tmp_path, opened):
    file = tmp_path / "train.parquet"
    file.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(UserError, match="as Parquet"):
        opened(str(file))
    datasets.Dataset.from_dict({"picture": [1, 2]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(UserError, match=r"'image'.*picture"):
        opened(str(tmp_path / "other.parquet"))
    datasets.Dataset.from_dict({"image": [1, 2]}).to_parquet(tmp_path / "numbers.parquet")
    with pytest.raises(UserError, match="column of images"):
        opened(str(tmp_path / "numbers.parquet"))


def test_missing_extra_says_what_to_install(parquet, opened, monkeypatch):
    folder = parquet("train.parquet", rows(2))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"frossl\[hf\]"):
        opened(folder)


def test_rows_are_stored_once_and_other_rows_are_another_store(parquet, opened, tmp_path):
    source = parquet("train-0.parquet", rows(12))
    first, again = (opened(source, cache=6) for _ in range(2))
    assert tuple(first.train.images.shape[1:]) == (3, 6, 8)
    assert torch.equal(first.train.images, again.train.images)
    stores = list((tmp_path / "data" / "cache").glob("*/pixels.bin"))
    assert len(stores) == 1
    assert not torch.equal(opened(parquet("train-0.parquet", rows(12, 50)), cache=6).train.images, first.train.images)
    assert len(list((tmp_path / "data" / "cache").glob("*/pixels.bin"))) == 2


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_files_without_a_split_name_are_the_training_images_beside_a_held_out_file(parquet, opened, held_out):
    parquet("data-0.parquet", rows(6))
    data = opened(parquet(f"{held_out}-0.parquet", rows(2)))
    assert (len(data.train), len(data.test)) == (6, 2)
