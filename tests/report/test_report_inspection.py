"""The numbers and pictures behind a report, where the right answer is known."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from frossl.cli import main
from frossl.core.types import Features
from frossl.curate.neighbours import nearest
from frossl.data.loader import epoch_order, training_batches, views_of
from frossl.data.types import Dataset, Split
from frossl.evals.extract import BANK, QUERIES, Extractor
from frossl.evals.knn import knn
from frossl.nn.encoder import EncoderSpec
from frossl.report.figures import confusion_figure
from frossl.report.gallery import describe_view, show_typical
from frossl.report.inspection import (
    LEAST,
    InspectedEncoder,
    confused_pairs,
    confusion,
    near_duplicates,
    plane,
    sample_sizes,
    spectrum_shares,
    spread_over_classes,
)
from frossl.report.pictures import CELL, sheet, thumbnail
from frossl.views.params import ORDERS, sample_params
from frossl.views.recipes import View


def images(count: int, seed: int = 0, side: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(seed)).byte()


def dataset(train: Split, test: Split) -> Dataset:
    classes = ("a", "b") if train.labels is not None else ()
    size = {"smallest": (16, 16), "largest": (16, 16), "typical": (16, 16)}
    return Dataset("made", train, test, classes, 3, (0.5,) * 3, (0.2,) * 3, **size, source="made here")


def seen(train: Split, test: Split) -> InspectedEncoder:
    data = dataset(train, test)
    x, y = (split.images.float().flatten(1) for split in (train, test))
    return InspectedEncoder(data, data, Features(x, y, train.labels, test.labels, data.classes), y)


def two_classes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(count) % 2
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    x[:, 0] += 3 * labels
    return x, labels


def test_a_copy_across_the_split_is_found_though_it_is_brighter():
    train, test = images(40), images(10, seed=1)
    train[33] = (test[4].float() * 0.6 + 40).byte()
    found = near_duplicates(seen(Split(train), Split(test)))
    assert int(found.alike.argmax()) == 4
    assert found.alike[4] > 0.99
    assert int(found.where[4]) == 33
    assert len(found.split) == 40
    assert int((found.alike > 0.99).sum()) == 1


def test_the_nearest_of_an_image_of_the_bank_is_that_image():
    x = two_classes(30, 0)[0]
    similarity, places = nearest(x, x[:5] * 2, 3)
    assert places[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert similarity[:, 0].tolist() == pytest.approx([1.0] * 5)


def test_the_confusion_matrix_holds_the_accuracy_of_knn():
    x, y = two_classes(60, 0)
    test_x, test_y = two_classes(40, 1)
    features = Features(x, test_x, y, test_y, ("a", "b"))
    counts = confusion(features)
    assert int(counts.sum()) == 40
    assert int(counts.trace()) / 40 == pytest.approx(knn(features)["knn"])
    assert counts.sum(1).tolist() == [20, 20]


def test_pointing_at_the_confusion_matrix_names_both_classes():
    drawn = confusion_figure(torch.tensor([[5, 1], [0, 2]]), ("cat", "dog"))
    (trace,) = drawn["data"]
    for letter, axis in (("x", "xaxis"), ("y", "yaxis")):  # plotly shows a value by the text of the tick at its place
        assert f"%{{{letter}}}" in trace["hovertemplate"]
        named = dict(zip(drawn["layout"][axis]["tickvals"], drawn["layout"][axis]["ticktext"], strict=True))
        assert [named[place] for place in trace[letter]] == ["cat", "dog"]


def test_mistakes_are_named_commonest_first():
    counts = torch.tensor([[5, 1, 0], [3, 7, 0], [0, 2, 8]])
    pairs = confused_pairs(counts, ("a", "b", "c"))
    assert pairs == [("b", "a", 3, 0.3), ("c", "b", 2, 0.2), ("a", "b", 1, 1 / 6)]


def test_an_image_far_from_all_others_is_the_least_typical():
    inspected = seen(Split(images(4)), Split(images(30)))
    x = torch.ones(30, 4) + 0.1 * torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    x[7] = torch.tensor([-1.0, 1.0, -1.0, 1.0])
    found = show_typical(replace(inspected, features=replace(inspected.features, test_NF=x)))
    assert found["Least typical"][0]["src"] == thumbnail(inspected.data.test.images[7])


def test_the_plane_and_the_spectrum_tell_the_same_shares():
    x = two_classes(50, 0)[0]
    flat, shares = plane(x)
    assert flat.shape == (50, 2)
    assert shares == pytest.approx(spectrum_shares(x)[:2])
    assert plane(torch.ones(5, 1))[0].shape == (5, 2)
    assert spectrum_shares(torch.ones(5, 3)) == []


def test_queries_are_taken_from_the_classes_in_turn_and_have_labels():
    labels = torch.tensor([0] * 6 + [-1] * 3 + [1] * 6)
    inspected = seen(Split(images(4), torch.tensor([0, 1, 0, 1])), Split(images(15), labels))
    assert labels[spread_over_classes(inspected, 4)].tolist() == [0, 1, 0, 1]


def test_the_views_shown_are_those_of_training():
    data, recipe = dataset(Split(images(12)), Split(images(4))), (View(count=2, size=12), View(count=1, size=8))
    batch = next(training_batches(data, recipe, batch=4, seed=5))
    index = epoch_order(12, 5, 0)[:4]
    assert torch.equal(batch.index_N, index)
    shown = views_of(data.train, recipe, index, data.mean, data.std, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(batch.views, shown, strict=True))


def test_only_what_was_done_to_a_view_is_written_under_it():
    still = View(count=1, scale=(1, 1), ratio=(1, 1), flip=0, jitter=0, grayscale=0)
    said = describe_view(still, _drawn(still), 0, (3, 16, 16))
    (line,) = said
    assert line.startswith("100%")
    assert line.endswith("16×16 at (0, 0)")
    wild = View(count=1, flip=1, jitter=1, saturation=0, hue=0.1, grayscale=1, blur=1, solarize=1)
    said = " ".join(describe_view(wild, _drawn(wild), 0, (3, 16, 16)))
    for word in ("brightness ×", "contrast ×", "hue ", "grey", "blur σ", "solarised", "mirrored"):
        assert word in said
    assert "saturation" not in said
    wild = replace(wild, saturation=1, vertical=1)
    said = describe_view(wild, _drawn(wild), 0, (3, 16, 16))
    order = ORDERS[int(_drawn(wild).order[0, 0])]
    assert [text.split()[0] for text in said[1:5]] == [
        ("brightness", "contrast", "saturation", "hue")[kind] for kind in order
    ]
    banded = " ".join(describe_view(wild, _drawn(wild), 0, (13, 16, 16)))
    assert "upside down" in banded
    assert not any(word in banded for word in ("saturation", "hue", "grey"))


def _drawn(group: View):
    return sample_params((group,), seed=0, epoch=0, index_N=torch.tensor([0]), height=16, width=16)[0]


@pytest.mark.parametrize(("side", "kind"), [(28, "png"), (300, "jpeg")])
def test_thumbnails_are_small_and_small_images_stay_as_they_are(side, kind):
    image = images(1, side=side)[0]
    source = thumbnail(image)
    assert source.startswith(f"data:image/{kind};base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert max(picture.size) <= 80
    if kind == "png":
        assert torch.equal(torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1), image)


def test_a_sheet_has_a_cell_for_every_image_grey_or_colour_of_any_size():
    source = sheet([images(1, side=s)[0] for s in (16, 40, 20)] + [images(1)[0, :1]], 2)
    picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert picture.size == (2 * CELL, 2 * CELL)


def test_a_slow_encoder_gets_fewer_images(monkeypatch):
    class Slow(torch.nn.Module):
        now = 0.0

        def forward(self, x):
            Slow.now += 0.05 * len(x)
            return x.flatten(1)

    monkeypatch.setattr("frossl.report.inspection.time.perf_counter", lambda: Slow.now)
    data = dataset(Split(images(80)), Split(images(80)))
    spec = EncoderSpec(
        backbone="own:Slow", channels=3, size=16, stem="imagenet", features=768, mean=data.mean, std=data.std
    )
    assert sample_sizes(Slow(), spec, data, Extractor()) == (LEAST, LEAST)
    monkeypatch.setattr("frossl.report.inspection.SECONDS", 1000.0)
    assert sample_sizes(Slow(), spec, data, Extractor()) == (BANK, QUERIES)


def test_the_command_writes_the_report_and_says_where(labelled, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    output = tmp_path / "two.html"
    with pytest.raises(SystemExit) as ended:
        main(["report", str(labelled), str(labelled), "-o", str(output), "--open"])
    assert not ended.value.code
    assert output.exists()
    said = capsys.readouterr().out
    assert str(output) in said
    assert "no display" in said


@pytest.mark.parametrize("argv", [[], ["nowhere"]])
def test_the_command_without_a_run_says_what_it_needs(argv, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["report", *argv])
    assert ended.value.code == 2
    assert "run directory" in capsys.readouterr().err
