"""Pictures of images that are read when they are needed: what is written under one is of the image that is shown."""

from __future__ import annotations

import pytest
from PIL import Image

from frossl.data import open_data
from frossl.data.loader import epoch_order
from frossl.data.types import Dataset
from frossl.evals.extract import sample
from frossl.report import contact
from frossl.report.gallery import picture, show_views, views_of_image
from frossl.views.recipes import View

RECIPE = (View(count=2, size=8),)


@pytest.fixture
def replaced(tmp_path, monkeypatch) -> tuple[Dataset, int]:
    """Red pictures of class a and blue ones of class b, each of its own width, and the first to be seen, unreadable."""
    monkeypatch.setattr("frossl.data.decide.IMAGES", 5)
    for i in range(40):
        path = tmp_path / "set" / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + i, 20), ("red", "blue")[i % 2]).save(path)
    data = open_data(str(tmp_path / "set"), check="on-read")
    first = int(epoch_order(len(data.train), 0, 0)[0])
    images = data.train.images
    (tmp_path / "set" / images.sources.name(int(images.index[first]))).write_bytes(b"broken")
    return data, first


def test_a_sheet_of_views_names_the_image_that_it_shows(replaced, monkeypatch):
    data, first = replaced
    rows = []
    monkeypatch.setattr(contact, "_sheet", lambda made, note: rows.extend(made))
    contact.contact_sheet(data, RECIPE, images=2)
    images, (image, text) = data.train.images, rows[0][0]
    chosen = images.show(first).chosen
    assert f"image {chosen}\n{20 + int(images.sources.name(int(images.index[chosen]))[2:4])}x20" in text
    assert f"in place of {first}" in text
    assert image.equal(images[chosen])
    assert "in place" not in rows[1][0][1]


def test_a_report_says_of_its_views_that_an_image_is_another(replaced):
    data, first = replaced
    assert views_of_image(data, RECIPE, first, 0)[0].image.equal(data.train.images[first])
    notes = [row["first"]["notes"] for row in show_views(data, RECIPE, 0)]
    assert [bool(said) for said in notes] == [True, False, False, False]


def test_labels_in_a_gallery_are_those_of_its_pictures(replaced):
    data, _ = replaced
    train = sample(data).train
    assert len(train) == len(data.train) - 1
    for i in range(len(train)):
        assert picture(train, i, data.classes)["label"] == ("a" if train.images[i][0].any() else "b")
