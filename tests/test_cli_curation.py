"""embed, explore and predict on folders as people have them."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console

import frossl as package
from frossl.core.types import UserError
from frossl.nn.encoder import EncoderSpec, save_encoder
from frossl.runs.embeddings import About, Embeddings, read_embeddings
from frossl.train import embed as embedding
from frossl.train.predict import _labelled, read_labels

SPEC = EncoderSpec(
    backbone="resnet18", channels=3, size=16, stem="small", features=8, mean=(0.4,) * 3, std=(0.2,) * 3,
    options={"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]},
)  # fmt: skip


@pytest.fixture
def encoder(tmp_path):
    torch.manual_seed(0)
    save_encoder(tmp_path / "e.safetensors", SPEC.build(), SPEC)
    return "e.safetensors"


def fill(folder, count: int = 50, classes=("",), mode: str = "RGB", seed: int = 0) -> None:
    """Smooth pictures of many sizes; those of the second class are darker."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        kind = i % len(classes)
        x = (rng.random((5, 5) if mode != "RGB" else (5, 5, 3)) + 1 - 0.7 * kind) * 100
        picture = Image.fromarray((x * 250).astype("uint16")) if mode == "I;16" else Image.fromarray(x.astype("uint8"))
        place = folder / classes[kind]
        place.mkdir(parents=True, exist_ok=True)
        picture.resize((20 + i % 3, 24)).save(place / f"{i:03}.png")


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def on_page(path):
    """The data of the page."""
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)[1])


def test_vectors_are_the_same_whatever_batch_workers_and_interruptions(tmp_path, encoder, monkeypatch):
    fill(tmp_path / "images", 21)
    monkeypatch.setattr(embedding, "PART", 8)
    how = {"encoder": str(tmp_path / encoder)}
    whole = package.embed(str(tmp_path / "images"), out=tmp_path / "a.npz", batch=21, workers=0, **how)
    other = package.embed(str(tmp_path / "images"), out=tmp_path / "b.parquet", batch=4, workers=2, **how)
    assert whole.paths == other.paths == [f"{i:03}.png" for i in range(21)]
    assert np.abs(whole.vectors - other.vectors).max() < 1e-5
    half = package.embed(str(tmp_path / "images"), out=tmp_path / "h.npz", half=True, **how)
    assert np.abs(half.vectors.astype(float) - whole.vectors).max() < 2e-3 * np.abs(whole.vectors).max()

    class StopError(Exception):
        pass

    encoded, seen = embedding.Extractor.encode, []

    def stopping(self, module, x):
        seen.append(len(x))
        if len(seen) == 4:
            raise StopError
        return encoded(self, module, x)

    monkeypatch.setattr(embedding.Extractor, "encode", stopping)
    for _ in range(2):
        try:
            again = package.embed(str(tmp_path / "images"), out=tmp_path / "c.npz", batch=4, **how)
        except StopError:
            assert not (tmp_path / "c.npz").exists()
    assert sum(seen[:3]) + sum(seen[4:]) < 21 + 8  # the first part was not encoded again
    assert np.abs(whole.vectors - again.vectors).max() < 1e-5


def test_a_folder_without_labels_and_with_broken_files(tmp_path, frossl, encoder):
    fill(tmp_path / "images", 50)
    (tmp_path / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "images" / "050.png").write_bytes((tmp_path / "images" / "007.png").read_bytes())
    code, said = frossl("explore", "images", "--encoder", encoder, "-o", "out")
    assert code == 0, said
    assert "broken.png" in said
    assert [row["path"] for row in rows(tmp_path / "out" / "duplicates.csv")] == ["007.png", "050.png"]
    assert {row["split"] for row in rows(tmp_path / "out" / "outliers.csv")} == {""}
    assert len(rows(tmp_path / "out" / "outliers.csv")) == len(rows(tmp_path / "out" / "clusters.csv")) == 51
    assert not (tmp_path / "out" / "labels.csv").exists()
    data = on_page(tmp_path / "out" / "explore.html")
    assert (data["classes"], len(data["paths"]), data["thumbnails"]) == ([], 51, 51)
    assert len(data["encoders"][0]["lists"]["groups"]) == 1


def test_images_of_one_name_keep_their_own_pictures(tmp_path, encoder):
    fill(tmp_path / "images", 60)
    encoded = [path.read_bytes() for path in sorted((tmp_path / "images").iterdir())]
    encoded[1] = encoded[0]  # which is not among the images that are compared
    pq.write_table(pa.table({"image": [{"bytes": x, "path": "image.png"} for x in encoded]}), tmp_path / "i.parquet")
    how = {"encoder": str(tmp_path / encoder), "out": tmp_path / "out", "most": 30}
    found = package.explore(str(tmp_path / "i.parquet"), **how)
    assert len({*found.frame("outliers")["path"]}) == 1
    assert found.frame("duplicates").empty


def test_labels_that_change_are_shown_and_nothing_is_encoded_again(tmp_path, encoder, monkeypatch):
    fill(tmp_path / "images", 20)
    said = io.StringIO()

    def labels_of(data: str, label: str) -> dict[str, str]:
        lines = [f"{i:03}.png,{'ab'[i % 2] if i else label}" for i in range(20)]
        (tmp_path / "images" / "labels.csv").write_text("\n".join(["path,label", *lines]))
        how = {"encoder": str(tmp_path / encoder)} if data == "images" else {}
        console = Console(file=said, width=200)
        found = package.explore(str(tmp_path / data), out=tmp_path / "out", map="pca", console=console, **how).frame(
            "outliers"
        )
        return dict(zip(found["path"], found["label"], strict=True))

    assert labels_of("images", "a")["000.png"] == "a"
    monkeypatch.setattr(embedding.Extractor, "encode", None)
    assert labels_of("images", "b")["000.png"] == "b"
    (file,) = (tmp_path / "out").glob("embeddings-*")
    assert dict(zip((one := read_embeddings(file)).paths, one.labels, strict=True))["000.png"] == "b"
    assert "changed" not in said.getvalue()
    assert labels_of(str(file), "a")["000.png"] == "a"
    assert "changed" in said.getvalue()


def test_images_of_16_bits_are_read_on_one_range(tmp_path, frossl, monkeypatch):
    fill(tmp_path / "images", 50, mode="I;16")
    spec = replace(SPEC, channels=1, mean=(0.4,), std=(0.2,), values="uint16", range=(0.0, 60000.0))
    torch.manual_seed(0)
    save_encoder(tmp_path / "g.safetensors", spec.build(), spec)
    of_bytes = replace(spec, values="uint8", range=())
    save_encoder(tmp_path / "bytes.safetensors", of_bytes.build(), of_bytes)
    code, said = frossl("explore", "images", "--encoder", "g.safetensors", "-o", "out")
    assert code == 0, said
    assert "from 0 to 60,000" in said or "from 0 to 60000" in said
    with monkeypatch.context() as patch:
        patch.setattr(embedding.Extractor, "encode", None)  # nothing is encoded again
        assert frossl("explore", "images", "--encoder", "g.safetensors", "-o", "out")[0] == 0
    code, said = frossl("embed", "images", "--encoder", "bytes.safetensors", "-o", "e.npz")
    assert code == 0, said  # on a range that is measured
    assert "uint16 from" in said
    fill(tmp_path / "bytes", 12)
    code, said = frossl("embed", "bytes", "--encoder", "g.safetensors", "--channels", 1, "-o", "e.npz")
    assert code == 2
    assert "intensities 0 to 60000" in said


def test_labels_splits_and_a_switch_between_encoders(tmp_path, frossl, encoder):
    for split, count, seed in (("train", 40, 0), ("test", 20, 1)):
        fill(tmp_path / "images" / split, count, ("light", "dark"), seed=seed)
    light = tmp_path / "images" / "train" / "light"
    (light / "copy.png").write_bytes((tmp_path / "images" / "test" / "light" / "004.png").read_bytes())
    (light / "wrong.png").write_bytes((tmp_path / "images" / "train" / "dark" / "003.png").read_bytes())
    code, said = frossl("explore", "images", "--encoder", encoder, "untrained", "-o", "out", "--map", "pca")
    assert code == 0, said
    groups = rows(tmp_path / "out" / "duplicates.csv")
    across = [row for row in groups if row["across_splits"] == "yes"]
    assert [(row["split"], row["keep"]) for row in across] == [("held-out", "yes"), ("train", "no")]
    assert rows(tmp_path / "out" / "labels.csv")[0]["path"].endswith(("wrong.png", "copy.png", "003.png"))
    assert (tmp_path / "out" / "untrained" / "outliers.csv").exists()
    data = on_page(tmp_path / "out" / "explore.html")
    assert [one["name"] for one in data["encoders"]] == [encoder, "untrained"]
    assert data["encoders"][0]["map"] == "PCA"
    assert data["splits"] == ["train", "held-out"]


def test_a_file_of_embeddings_is_explored_with_its_images_and_without(tmp_path, frossl, encoder):
    fill(tmp_path / "images", 30)
    assert frossl("embed", "images", "--encoder", encoder, "-o", "e.npz")[0] == 0
    assert frossl("explore", "e.npz", "-o", "with")[0] == 0
    assert on_page(tmp_path / "with" / "explore.html")["thumbnails"] == 30
    (tmp_path / "images").rename(tmp_path / "moved")
    code, said = frossl("explore", "e.npz", "-o", "without")
    assert code == 0
    assert "is not there" in said
    assert not (tmp_path / "without" / "duplicates.csv").exists()
    (tmp_path / "moved").rename(tmp_path / "images")
    fill(tmp_path / "images", 30, seed=3)
    assert frossl("explore", "e.npz", "-o", "other")[0] == 2


def test_few_labels_in_labels_for_all_out(tmp_path, frossl, encoder):
    fill(tmp_path / "images", 50)
    for i in range(1, 50, 2):  # every second image is dark
        path = tmp_path / "images" / f"{i:03}.png"
        Image.open(path).point(lambda v: v // 4).save(path)
    known = [f"{i:03}.png,{('light', 'dark')[i % 2]}" for i in range(16)]
    (tmp_path / "labels.csv").write_text("path,label\n" + "\n".join(known) + "\n049.png,\n")
    code, said = frossl("predict", "images", "--encoder", encoder, "--labels", "labels.csv", "--least", "0.6")
    assert code == 0, said
    assert "16 labels" in said
    assert "No better than a guess" not in said
    found = rows(tmp_path / "predictions.csv")
    right = [row["likeliest"] == ("light", "dark")[i % 2] for i, row in enumerate(found)]
    assert sum(right) > 45
    assert all((float(row["probability"]) >= 0.6) == bool(row["label"]) for row in found)
    ahead = [row["path"] for row in rows(tmp_path / "predictions-label-next.csv")]
    assert len(ahead) == 34
    assert not {*ahead} & {line.split(",")[0] for line in known}
    assert f"{sum(bool(row['label']) for row in found if not row['given'])} of the 34 images without a label" in said
    sure = {row["path"]: float(row["probability"]) for row in found}
    assert sure[ahead[0]] <= sure[ahead[-1]]


def test_labels_that_have_nothing_to_do_with_the_images_are_no_better_than_a_guess(tmp_path, frossl, encoder):
    fill(tmp_path / "images", 30)
    known = [f"{i:03}.png,{kind}" for i, kind in enumerate("abbabaabbbaabaababba")]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *known]))
    code, said = frossl("predict", "images", "--encoder", encoder, "--labels", "labels.csv")
    assert code == 0, said
    assert "No better than a guess" in said
    assert "right for 50.0%" in said
    assert "Label more images" in said


@pytest.mark.parametrize(
    ("name", "columns", "said"),
    [
        ("lables.csv", "path,label", "Did you mean 'labels.csv'?"),
        ("labels.csv", "File,class", "Rename 'File' to 'path' and 'class' to 'label'"),
        ("labels.csv", "path,x", "it has path, x."),
    ],
)
def test_the_table_of_labels_is_looked_at_before_any_image(tmp_path, frossl, name, columns, said):
    (tmp_path / "labels.csv").write_text(f"{columns}\n000.png,a\n")
    code, printed = frossl("predict", "no-such-images", "--encoder", "no-such-encoder", "--labels", name)
    assert code == 2
    assert said in printed


@pytest.mark.parametrize(("installed", "extension"), [(True, "parquet"), (False, "npz")])
def test_embeddings_go_to_a_file_that_can_be_written(tmp_path, frossl, encoder, monkeypatch, installed, extension):
    fill(tmp_path / "images", 12)
    if not installed:
        monkeypatch.setattr("importlib.util.find_spec", lambda name, find=importlib.util.find_spec: (
            None if name == "pyarrow" else find(name)
        ))  # fmt: skip
    assert frossl("embed", "images", "--encoder", encoder)[0] == 0
    assert len(read_embeddings(tmp_path / f"embeddings.{extension}")) == 12


@pytest.mark.parametrize(("classes", "doubted"), [(("light", "dark"), False), (("a", "b", "c"), True)])
def test_where_much_is_doubted_the_encoder_is(tmp_path, frossl, encoder, classes, doubted):
    fill(tmp_path / "images", 60, ("light", "dark"))
    for i, path in enumerate(sorted((tmp_path / "images").rglob("*.png"))):
        kind = path.parent.name if not doubted else classes[i * 7 % 3]
        path.rename(tmp_path / "images" / f"{kind}-{path.name}")
    named = [path.name for path in sorted((tmp_path / "images").glob("*.png"))]
    lines = ["path,label", *(f"{name},{name.partition('-')[0]}" for name in named)]
    (tmp_path / "images" / "labels.csv").write_text("\n".join(lines))
    code, said = frossl("explore", "images", "--encoder", encoder, "-o", "out", "--map", "pca")
    assert code == 0, said
    share = sum(row["doubted"] == "yes" for row in rows(tmp_path / "out" / "labels.csv")) / 60
    assert (share > 0.2) == doubted
    for text in (said, (tmp_path / "out" / "explore.html").read_text()):
        assert (f"doubts {share:.0%} of the labels: this encoder separates the classes poorly" in text) == doubted


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("file,label\na,b\n", "needs the columns path and label"),
        ("path,label\nnone.png,b\n", "are not those of one image: none.png"),
        ("path,label\n000.png,b\n000.png,c\n", "two labels, b and c"),
        ("path,label\n000.png,b\n001.png,c\n", "at least 10 images"),
    ],
)
def test_tables_of_labels_that_do_not_do_are_refused(tmp_path, frossl, encoder, table, said):
    fill(tmp_path / "images", 12)
    (tmp_path / "labels.csv").write_text(table)
    code, printed = frossl("predict", "images", "--encoder", encoder, "--labels", "labels.csv")
    assert code == 2
    assert said in printed


@pytest.mark.parametrize(
    ("rows_of", "expected"),
    [
        ("dog/d00.png,a\nd01.png,b\n/far/dog/d02.png,c", {0: "a", 1: "b", 2: "c"}),
        ("cat/d00.png,a", "cat/d00.png"),
        ("ag/d00.png,a", "ag/d00.png"),
        ("same.png,a", "same.png"),
        ("b/same.png,a", {4: "a"}),
        ("dog/d00.png,  \ndog/d01.png, b ", {1: "b"}),
        ("dog/bad.png,a\ndog/d00.png,b", {0: "b"}),
    ],
)
def test_labels_go_to_the_image_of_their_path_and_to_no_other(tmp_path, rows_of, expected):
    table = tmp_path / "labels.csv"
    table.write_text(f"path,label\n{rows_of}\n")
    about = About(
        encoder="e", checksum="c", title="net", size=8, features=1, dtype="float32", source="s", options={},
        targets=None, images="d", count=6,
    )  # fmt: skip
    paths = ["dog/d00.png", "dog/d01.png", "dog/d02.png", "a/same.png", "b/same.png"]
    none = [""] * 5
    one = Embeddings([*range(5)], paths, none, [None] * 5, np.ones((5, 1)), about, {"dog/bad.png": "broken"})
    said = io.StringIO()
    if isinstance(expected, str):
        with pytest.raises(UserError, match=f"not those of one image: {expected}"):
            _labelled(table, read_labels(table), one, Console(file=said))
    else:
        assert _labelled(table, read_labels(table), one, Console(file=said)) == expected
    assert ("could not be read" in said.getvalue()) == ("bad" in rows_of)


def test_features_that_half_precision_cannot_hold_are_refused(tmp_path, encoder, monkeypatch):
    fill(tmp_path / "images", 12)
    monkeypatch.setattr(embedding.Extractor, "encode", lambda self, module, x: torch.full((len(x), 8), 7e4))
    with pytest.raises(UserError, match="65,504"):
        package.embed(str(tmp_path / "images"), encoder=str(tmp_path / encoder), out=tmp_path / "h.npz", half=True)


def test_pictures_of_unreadable_images_do_not_enter_statistics():
    x = torch.arange(10.0)[:, None]
    batches = [(x[:4], ["", "broken", "", ""]), (x[4:8], [""] * 4), (x[8:], [""] * 2)]
    found = [part.flatten().tolist() for part in embedding._readable(batches, 4)]
    assert found == [[0, 2, 3, 4], [5, 6, 7, 8], [9]]


def test_without_an_encoder_lite0_serves_or_it_is_said_what_to_type(tmp_path, frossl, monkeypatch):
    fill(tmp_path / "images", 12)
    code, said = frossl("embed", "images", "--size", 32, "-o", "e.npz")
    assert code == 0
    assert "lite0" in said
    code, said = frossl("embed", "images", "--held-out", 0.5, "-o", "g.npz")
    assert code == 2
    assert "none is held out" in said
    monkeypatch.setattr(embedding, "has_lite0", lambda: False)
    code, said = frossl("embed", "images", "-o", "f.npz")
    assert code == 2
    assert "--encoder" in said
    assert "frossl[lite0]" in said
