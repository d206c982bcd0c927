"""The commands views, cache and bench, and pretraining from a store."""

import json
import os
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from frossl.report.contact import CELL, GAP
from frossl.runs.log import read_rows
from frossl.views.recipes import VIEWS, summary
from test_cli import TINY


@pytest.fixture
def folder(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for i in range(24):
        noise = torch.randint(0, 256, (20 + i % 3, 26, 3), generator=generator, dtype=torch.uint8)
        path = tmp_path / "images" / f"class{i % 2}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.numpy()).save(path)
    return path.parent.parent


@pytest.mark.parametrize(("recipe", "columns"), [("natural", 3), ("multicrop", 9)])
def test_views_writes_a_sheet_of_the_image_and_its_views(frossl, folder, tmp_path, recipe, columns):
    code, said = frossl("views", folder, "--view-recipe", recipe, "-o", "sheet.png", "--images", 2)
    assert code == 0
    assert "sheet.png" in said
    sheet = np.array(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[1] == GAP + columns * (CELL + GAP)
    first_row = [sheet[GAP : GAP + CELL, GAP + c * (CELL + GAP) :][:, :CELL] for c in range(columns)]
    assert all(picture.std() > 10 for picture in first_row)
    assert not any(np.array_equal(a, b) for a, b in pairwise(first_row))
    below = sheet[GAP + CELL : 2 * GAP + CELL + 20]
    assert (below < 100).any()  # letters


def test_views_of_grey_images_say_what_is_left_out(frossl, folder, tmp_path):
    assert frossl("views", folder, "--channels", 1, "--view-recipe", "natural", "-o", "natural.png")[0] == 0
    assert frossl("views", folder, "--channels", 1, "-o", "grey.png")[0] == 0
    tops = [np.array(Image.open(tmp_path / f"{name}.png"))[: GAP + 16] for name in ("natural", "grey")]
    assert (tops[0] < 100).sum() > 500  # the sentence
    for wrong in (("--images", 0), ("--view-recipe", "nature"), ("--views", 1), ("-o", "v.jpg"), ("-o", "no/v.png")):
        code, said = frossl("views", folder, *wrong)
        assert code == 2
        assert said.startswith("frossl: ")
    (tmp_path / "empty").mkdir()
    assert "no files" in frossl("views", tmp_path / "empty")[1]


def test_thirteen_channels_from_the_sheet_to_the_report(frossl, tmp_path):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 16, 16, 13), dtype=np.uint8)
    np.savez(tmp_path / "bands.npz", images=images, labels=np.arange(40) % 2)
    assert frossl("views", "bands.npz", "-o", "bands.png", "--images", 1)[0] == 0
    assert Image.open(tmp_path / "bands.png").size[0] == GAP + 3 * (CELL + GAP)
    run = ("--length", "2it", "--batch", 8, "--name", "r", "--out", "runs", "--no-evaluate")
    code, said = frossl("pretrain", "bands.npz", *run, *TINY)
    assert code == 0
    assert "images have 13 channels" in said
    assert "kNN" in frossl("evaluate", "runs/r", "--protocol", "knn", "rank", "robustness")[1]
    assert frossl("report", "runs/r")[0] == 0
    assert (tmp_path / "runs/r/report.html").stat().st_size > 1000


def test_a_store_of_images_smaller_than_the_views_is_refused(frossl, folder):
    code, said = frossl("pretrain", folder, "--cache", 8, "--size", 16, "--length", "1it", *TINY)
    assert code == 2
    assert "--cache 16 or more, or --size 8" in said


def test_every_view_recipe_has_one_line(frossl):
    said = frossl("list", "recipes")[1]
    for name in VIEWS:
        assert f" {name} {summary(name)}" in said


def test_a_run_from_the_store_that_cache_made(frossl, folder, tmp_path):
    code, said = frossl("cache", folder, "--size", 16)
    assert code == 0
    assert "24 images are stored" in said
    assert f"--cache {16}" in said
    stores = {p: p.stat().st_mtime_ns for p in (tmp_path / "data" / "cache").glob("*/pixels.bin")}
    assert len(stores) == 1
    code, _ = frossl(
        "pretrain", folder, "--cache", 16, "--length", "2it", "--batch", 8, "--size", 16, "--no-evaluate",
        "--name", "r", "--log-every", 1, "--workers", 2, *TINY,
    )  # fmt: skip
    assert code == 0
    assert [row["step"] for row in read_rows(tmp_path / "runs/r/metrics.jsonl") if row["kind"] == "train"] == [1, 2]
    assert json.loads((tmp_path / "runs/r/config.json").read_text())["config"]["cache"] == 16
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "data" / "cache").glob("*/pixels.bin")} == stores


def test_a_store_of_splits_with_other_classes_is_made_without_labels(frossl, folder):
    folder.rename(folder.with_name("train"))
    place = folder.with_name("set")
    shutil.copytree(folder.with_name("train"), place / "train")
    shutil.copytree(folder.with_name("train"), place / "val" / "inner")
    assert frossl("cache", place, "--size", 16)[0] == 0  # what has no label in common stops nothing
    code, said = frossl("cache", place, "--size", 16, "--no-labels")
    assert code == 0
    assert "48 images are stored" in said
    assert said.endswith("--cache 16 --no-labels")
    assert frossl("cache", place, "--size", 16, "--seed", 1)[0] == 2  # which changes nothing in a store


def test_cache_prints_every_option_that_opens_its_store_again(frossl, folder):
    code, said = frossl("cache", folder, "--size", 16, "--channels", 1, "--range", 0, 200, "--pages", "first")
    assert code == 0
    assert said.endswith("--cache 16 --channels 1 --range 0.0 200.0 --pages first")


def test_a_folder_whose_name_is_in_another_code_is_named_as_well_as_can_be(frossl, folder):
    name = os.fsdecode(b"caf\xe9")
    folder.rename(folder.with_name(name))
    code, said = frossl("cache", name, "--size", 16)
    assert code == 0
    assert "24 images are stored" in said
    assert "caf?" in said


def test_bench_says_where_the_time_goes(frossl, folder):
    few = ("--steps", 2, "--batch", 8, "--device", "cpu")
    code, said = frossl("bench", "train", "--size", 16, *few)
    assert code == 0
    for part in ("views", "forward", "backward", "optimiser", "step", "images/s", "telemetry"):
        assert part in said
    code, said = frossl("bench", "loss", "--steps", 1, "--device", "cpu")
    assert code == 0
    assert "8 x 1024 x 1024" in said
    assert frossl("bench", "views", "--steps", 0)[0] == 2


@pytest.mark.parametrize(
    ("what", "options", "named"),
    [
        ("loss", ("--batch", 64, "--method", "vicreg", "--steps", 1), "--batch"),
        ("loss", ("--view-recipe", "grey"), "--view-recipe"),
        ("views", ("--compile-views", "--size", 16), "--compile-views"),
    ],
)
def test_bench_refuses_options_of_its_other_measurements(frossl, what, options, named):
    code, said = frossl("bench", what, *options)
    assert code == 2
    assert named in said


def test_bench_of_views_from_files_has_decoding_and_both_kinds_of_colours(frossl, folder, monkeypatch):
    monkeypatch.setattr("frossl.commands.bench.has_compiler", lambda: False)
    code, said = frossl(
        "bench", "views", "--data", folder, "--size", 16, "--steps", 2, "--batch", 8, "--workers", 0, "--device", "cpu"
    )
    assert code == 0
    for part in ("eager", "views/s", "decoding alone"):
        assert part in said
    assert "compiled" not in said


def test_bench_of_a_method_with_prototypes(frossl):
    code, said = frossl(
        "bench", "train", "--method", "dino", "--size", 16, "--steps", 1, "--batch", 8, "--device", "cpu"
    )
    assert code == 0
    assert "telemetry" in said
