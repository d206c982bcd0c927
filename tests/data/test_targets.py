"""What labels are: classes, values to predict, or several an image, from every source that can bring them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from frossl.core.types import UserError
from frossl.data import Split, from_tensors, open_data
from frossl.data.build import hold_out
from frossl.data.options import Opening
from frossl.data.targets import are_values, read_labels


def ages(count: int, low: int, high: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, count)


def saved(tmp_path, labels: np.ndarray, images: int | None = None) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (images or len(labels), 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=pixels, labels=labels)
    return str(tmp_path / "set.npz")


@pytest.mark.parametrize(
    ("numbers", "values"),
    [
        (np.array([0.0, 1.5] * 50), True),  # not whole
        (ages(300, 20, 81), True),
        (ages(500, 0, 100), True),
        (ages(2000, 20, 81), True),  # 33 images each, but with gaps: they do not start at 0 or 1
        (np.arange(1000) % 200, False),  # five of each of 200 classes
        (np.arange(1000) % 200 + 1, False),
        (np.arange(20_000) % 1000, False),
        (ages(30_000, 0, 1000), False),  # 1,000 classes that are not quite even
        (np.array([3, 17, 204, 900] * 60), False),  # few classes of many
        (np.arange(6000) % 100 * 10, False),  # a hundred of a thousand classes
        (ages(100, 0, 10), False),
    ],
)
def test_numbers_are_classes_or_values(numbers, values):
    assert are_values(numbers.astype(float)) is values


def test_whoever_says_what_numbers_are_is_believed_and_the_other_reading_is_named():
    numbers = ages(300, 20, 81).tolist()
    found = read_labels(numbers)
    assert (found.numbers.dtype, found.classes) == (np.float64, ())
    assert "--targets classes" in found.note
    assert len(read_labels(numbers, targets="classes").classes) == 61
    even = (np.arange(300) % 100).tolist()
    assert "--targets values" in read_labels(even).note
    assert read_labels(even, targets="values").numbers.tolist() == even
    assert read_labels([0, 1, 0], targets="values").numbers.tolist() == [0, 1, 0]
    with pytest.raises(UserError, match=r"--targets values.*'old'"):
        read_labels(["old", "new"], targets="values")
    with pytest.raises(UserError, match="is infinite"):
        read_labels([1.5, math.inf])


def test_an_unknown_value_is_nan_or_a_minus_one_among_numbers_that_are_not_negative():
    assert np.isnan(read_labels([1.5, -1, None, math.nan, 2.0]).numbers).tolist() == [False, True, True, True, False]
    assert not np.isnan(read_labels([1.5, -1.0, -0.5]).numbers).any()


def test_arrays_bring_values_and_hold_out_every_tenth_of_them(tmp_path):
    data = open_data(saved(tmp_path, ages(300, 20, 81)), held_out=0.1)
    assert (data.targets, data.classes, data.train.labels.dtype) == ("values", (), torch.float64)
    assert any("values, from 20 to 80" in note for note in data.notes)
    tenths = torch.tensor(np.quantile(torch.cat([data.train.labels, data.test.labels]), np.linspace(0, 1, 11)[1:-1]))
    counts = torch.bucketize(data.test.labels, tenths).bincount(minlength=10)
    assert counts.min() >= 1
    assert open_data(saved(tmp_path, ages(300, 20, 81)), targets="classes").targets == "classes"
    assert open_data(saved(tmp_path, ages(40, 0, 9)), targets="values").targets == "values"
    floats = open_data(saved(tmp_path, ages(60, 0, 9) / 4))
    assert floats.targets == "values"


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float32])
def test_arrays_bring_several_labels_an_image(tmp_path, kind):
    several = np.random.default_rng(0).integers(0, 2, (50, 3)).astype(kind)
    data = open_data(saved(tmp_path, several))
    assert (data.targets, data.classes, len(data.tags)) == ("multilabel", (), 3)
    assert data.train.labels.shape == (45, 3)
    assert torch.cat([data.train.labels, data.test.labels]).sum() == several.sum()
    unknown = np.where(np.arange(50)[:, None] == 7, np.nan, several)
    read = open_data(saved(tmp_path, unknown))
    assert sum(int((split.labels == -1).all(1).sum()) for split in (read.train, read.test)) == 1
    with pytest.raises(UserError, match=r"several labels.*\(25, 2\)"):
        open_data(saved(tmp_path, np.full((25, 2), 7), images=25))


def test_lists_that_hold_nothing_are_no_labels_and_those_of_one_label_are_classes():
    assert read_labels([[], [], None]).note == ""
    assert read_labels([["b"], ["a", "b"], [None]], names=("a", "b")).numbers.tolist() == [[0, 1], [1, 1], [0, 0]]
    assert read_labels([[4], [7], [4]]).classes == ("4", "7")


def test_tensors_bring_values_and_several_labels():
    x = torch.zeros(20, 1, 4, 4, dtype=torch.uint8)
    assert from_tensors(Split(x, torch.rand(20))).targets == "values"
    several = from_tensors(Split(x, torch.rand(20, 3) < 0.5), tags=("a", "b", "c"))
    assert (several.targets, several.tags, several.train.labels.dtype) == ("multilabel", ("a", "b", "c"), torch.int64)
    assert from_tensors(Split(x, torch.full((20,), math.nan))).targets is None
    for labels, said in [(torch.full((20,), math.inf), "infinite"), (torch.full((20, 2), 3), "0 or 1")]:
        with pytest.raises(UserError, match=said):
            from_tensors(Split(x, labels))


def test_every_combination_of_labels_is_held_out():
    several = np.array([[0, 1]] * 50 + [[1, 1]] * 50)
    (_, held), _ = hold_out(100, several, Opening(held_out=0.2))
    assert (held < 50).sum() == (held >= 50).sum() == 10


@pytest.fixture
def parquet(tmp_path):
    datasets = pytest.importorskip("datasets")
    from io import BytesIO

    from PIL import Image

    def save(name: str, labels: list) -> str:
        images = []
        for i in range(len(labels)):
            buffer = BytesIO()
            Image.new("L", (8, 8), i % 256).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
        datasets.Dataset.from_dict({"image": images, "label": labels}).to_parquet(tmp_path / "set" / f"{name}.parquet")
        return str(tmp_path / "set")

    (tmp_path / "set").mkdir()
    return lambda **splits: [save(name, labels) for name, labels in splits.items()][-1]


def test_parquet_brings_values_of_the_same_kind_in_both_splits(parquet, tmp_path):
    data = open_data(parquet(train=[0.5, 1.25, None, 3.0], test=[2.0, 1.0]), data_dir=tmp_path / "data")
    assert data.targets == "values"
    assert data.train.labels.isnan().tolist() == [False, False, True, False]
    assert data.test.labels.tolist() == [2.0, 1.0]


def test_parquet_brings_numbers_of_named_labels_and_names_must_be_enough(parquet, tmp_path):
    datasets = pytest.importorskip("datasets")
    source, where = parquet(train=[[1], [0, 1], []], test=[[0], [1, 0]]), {"data_dir": tmp_path / "data"}
    for names in (["a", "b"], ["a"]):
        for split in ("train", "test"):
            path = tmp_path / "set" / f"{split}.parquet"
            table = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path))
            feature = {"label": datasets.Sequence(datasets.ClassLabel(names=names))}
            table.cast(datasets.Features({**table.features, **feature})).to_parquet(path)
        if len(names) == 2:
            data = open_data(source, **where)
            assert (data.tags, data.train.labels.tolist()) == (("a", "b"), [[0, 1], [1, 1], [0, 0]])
    with pytest.raises(UserError, match="0 to 1, with 1 names"):
        open_data(source, **where)


def test_parquet_brings_zeros_and_ones_of_named_labels(parquet, tmp_path):
    datasets = pytest.importorskip("datasets")
    hot = [[0, 1, 1], [1, 0, 0], [1, 1, 0]]
    source, path = parquet(train=hot, test=hot[1:]), tmp_path / "set" / "train.parquet"
    table = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path))
    feature = {"label": datasets.Sequence(datasets.ClassLabel(names=["cat", "dog", "cow"]))}
    table.cast(datasets.Features({**table.features, **feature})).to_parquet(path)
    data = open_data(source, data_dir=tmp_path / "data")
    assert (data.tags, data.train.labels.tolist(), data.test.labels.tolist()) == (("cat", "dog", "cow"), hot, hot[1:])


def test_parquet_brings_lists_of_names_or_numbers(parquet, tmp_path):
    source = parquet(train=[["cat"], ["dog", "cat"], [], None], test=[["dog"], ["dog"]])
    data = open_data(source, data_dir=tmp_path / "data")
    assert (data.targets, data.tags) == ("multilabel", ("cat", "dog"))
    assert data.train.labels.tolist() == [[1, 0], [1, 1], [0, 0], [-1, -1]]
    assert data.test.labels.tolist() == [[0, 1], [0, 1]]
    numbers = open_data(parquet(train=[[4, 7], [7], [9]], test=[[9]]), data_dir=tmp_path / "data")
    assert numbers.tags == ("4", "7", "9")
    more = open_data(parquet(train=[["cat", "dog"], ["dog"]], test=[["emu", "dog"]]), data_dir=tmp_path / "data")
    assert (more.tags, more.test.labels.tolist()) == (("cat", "dog"), [[0, 1]])
    assert any("emu" in note for note in more.notes)
