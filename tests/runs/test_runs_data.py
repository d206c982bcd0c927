"""Data of a run that were moved, or are named by a path that leads elsewhere from another directory."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frossl.core.types import UserError
from frossl.data import Split, from_tensors, open_data
from frossl.data.fingerprint import SAMPLED, differences, fingerprint
from frossl.runs.config import Config
from frossl.runs.data import find_run_data, on_validation
from frossl.runs.directory import encoder_of, read_run
from frossl.runs.record import read_rows
from frossl.train.pretrain import pretrain
from report.tiny_runs import config, folder

pytestmark = pytest.mark.usefixtures("no_reports", "two_penalties")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A project with images and a run of a step that names them by a relative path."""
    place = tmp_path_factory.mktemp("moving") / "project"
    folder(place / "images")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        pretrain(config(Path("images"), Path("runs"), name="r", length="2it", views=2, evaluate=False))
    return place


@pytest.fixture
def project(made, tmp_path, monkeypatch) -> Path:
    """A copy of it, of which nobody knows the first place any more; the current directory."""
    place = shutil.copytree(made, tmp_path / "project", symlinks=True)
    whereabouts = place / "runs/r/data.json"
    whereabouts.write_text(whereabouts.read_text().replace(str(made), str(place)))
    monkeypatch.chdir(place)
    return place


def steps(run: Path) -> list[int]:
    return [row["step"] for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]


def kept(run: Path) -> dict:
    return json.loads((run / "data.json").read_text())


def evaluated(run: Path) -> dict:
    return json.loads((run / "evaluation.json").read_text())


def other_pixels(images: Path) -> None:
    """One image of a class becomes another."""
    Image.new("RGB", (16, 16), "red").save(min((images / "dark").iterdir()))


def test_a_run_is_used_from_another_directory(frossl, project, monkeypatch, tmp_path):
    assert json.loads((project / "runs/r/config.json").read_text())["config"]["data"] == "images"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    run = project / "runs/r"
    assert frossl("pretrain", "--resume", run, "--no-evaluate")[0] == 0
    assert frossl("evaluate", run, "--protocol", "knn", "--arms", "supervised")[0] == 0
    assert frossl("report", run)[0] == 0
    assert "cannot be found" not in (run / "report.html").read_text()
    assert list(evaluated(run)) == ["images"]
    assert not list(elsewhere.iterdir())


def test_data_given_anew_are_kept_and_go_on_under_their_name(frossl, project):
    run = project / "runs/r"
    assert frossl("evaluate", run, "--protocol", "knn")[0] == 0
    before = evaluated(run)
    (project / "images").rename(project / "photos")
    code, said = frossl("evaluate", run, "--protocol", "knn")
    assert code == 2
    assert re.search("images is not there.*pretrain DATA --resume", said)
    assert frossl("pretrain", "photos", "--resume", run, "--no-evaluate")[0] == 0
    assert kept(run)["places"] == [str(project / "photos"), str(project / "images")]
    for command in (
        ["evaluate", run, "--protocol", "knn"],
        ["evaluate", run, "--data", "photos", "--protocol", "rank"],
    ):
        assert frossl(*command)[0] == 0
    assert list(evaluated(run)) == list(before) == ["images"]
    assert evaluated(run)["images"]["source"] == before["images"]["source"]
    assert evaluated(run)["images"]["protocols"].keys() == {"knn", "rank"}


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_evaluation_and_report_are_told_where_the_data_are(frossl, project, command):
    run = project / "runs/r"
    (project / "images").rename(project / "photos")
    options = ["--protocol", "knn"] if command == "evaluate" else []
    assert frossl(command, run, "--data", "photos", *options)[0] == 0
    assert kept(run)["places"][0] == str(project / "photos")
    assert find_run_data(run, read_run(run)[0]).name == "images"


def test_other_data_are_refused_with_what_differs(frossl, project):
    run = project / "runs/r"
    shutil.copytree(project / "images", project / "photos")
    (project / "images").rename(project / "gone")
    other_pixels(project / "photos")
    before = kept(run)
    for command in (["pretrain", "photos", "--resume", run], ["report", run, "--data", "photos"]):
        code, said = frossl(*command)
        assert code == 2
        assert re.search(r"photos holds other images \(other pixels\)", said)
    max((project / "photos/dark").iterdir()).unlink()
    with pytest.raises(UserError, match=r"images were \[36, 12\], are \[35, 12\]"):
        find_run_data(run, config(project / "photos", project, views=2))
    assert frossl("evaluate", run, "--data", "photos", "--protocol", "knn")[0] == 0  # as other data
    assert list(evaluated(run)) == ["photos"]
    assert kept(run) == before


def test_of_two_folders_that_the_path_may_mean_the_one_with_the_same_images_is_taken(project, monkeypatch, tmp_path):
    run = project / "runs/r"
    shutil.copytree(project / "images", tmp_path / "elsewhere/images")
    other_pixels(project / "images")
    monkeypatch.chdir(tmp_path / "elsewhere")
    find_run_data(run, read_run(run)[0])
    assert kept(run)["places"][0] == str(tmp_path / "elsewhere/images")
    other_pixels(tmp_path / "elsewhere/images")
    with pytest.raises(UserError, match=r"cannot be found.*other pixels.*other pixels"):
        find_run_data(run, read_run(run)[0])


def test_a_run_that_begins_again_keeps_the_fingerprint_of_what_it_trains_on(project):
    run = project / "runs/r"
    other_pixels(project / "images")
    shutil.rmtree(run / "checkpoints")
    encoder_of(run).unlink()
    for _ in range(2):  # begins again, and goes on
        assert pretrain(read_run(run)[0], resume=run).run == run


def test_a_project_that_was_moved_as_a_whole_goes_on(frossl, project, monkeypatch, tmp_path):
    project.rename(tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    assert frossl("pretrain", "--resume", "runs/r", "--no-evaluate")[0] == 0
    assert kept(Path("runs/r"))["places"][0] == str(tmp_path / "new/images")


@pytest.mark.parametrize("path", ["../images", "link", "inner/../../images"])
def test_a_path_through_its_parent_or_a_link_is_found_from_elsewhere(tmp_path, monkeypatch, path):
    folder(tmp_path / "images")
    (tmp_path / "here/inner").mkdir(parents=True)
    (tmp_path / "here/link").symlink_to("../images")
    monkeypatch.chdir(tmp_path / "here")
    run = pretrain(config(Path(path), tmp_path / "runs", name="r", length="2it", views=2, evaluate=False)).run
    monkeypatch.chdir("/")
    find_run_data(run, read_run(run)[0])
    assert steps(pretrain(read_run(run)[0], resume=run).run) == [1, 2]
    assert str(tmp_path).encode() not in encoder_of(run).read_bytes()


def test_a_link_may_come_to_lead_to_where_the_same_images_are_now(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(folder(tmp_path / "images"))
    monkeypatch.chdir(tmp_path)
    run = pretrain(config(Path("link"), tmp_path / "runs", name="r", length="2it", views=2, evaluate=False)).run
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to((tmp_path / "images").rename(tmp_path / "disk"))
    monkeypatch.chdir("/")
    assert steps(pretrain(read_run(run)[0], resume=run).run) == [1, 2]
    other_pixels(tmp_path / "disk")
    with pytest.raises(UserError, match=r"cannot go on.*(mean|pixels)"):
        pretrain(read_run(run)[0], resume=run)


def test_a_fingerprint_does_not_see_the_place_and_sees_pixels_labels_and_names(tmp_path):
    one, other = (open_data(str(folder(tmp_path / name))) for name in ("a", "b"))
    assert fingerprint(one) == fingerprint(other)
    (tmp_path / "b/dark").rename(tmp_path / "b/darker")
    assert differences(fingerprint(one), fingerprint(open_data(str(tmp_path / "b")))) == ["other classes"]
    other_pixels(tmp_path / "a")
    assert differences(fingerprint(other), fingerprint(open_data(str(tmp_path / "a")))) == ["other pixels"]
    unlabelled = fingerprint(open_data(str(tmp_path / "a"), labels=False))
    assert {"other classes", "other labels"} <= set(differences(fingerprint(other), unlabelled))


def test_of_images_that_are_decoded_when_needed_a_sample_is_looked_at(tmp_path):
    assert SAMPLED >= 36
    folder(tmp_path / "a")
    in_memory, lazy = (open_data(str(tmp_path / "a"), memory_limit=limit) for limit in (2**30, 0))
    before = fingerprint(lazy)
    assert before["labels"] == fingerprint(in_memory)["labels"]
    other_pixels(tmp_path / "a")
    assert differences(before, fingerprint(open_data(str(tmp_path / "a"), memory_limit=0))) == ["other pixels"]


def test_arrays_are_found_and_a_damaged_file_is_named(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", images=rng.integers(0, 256, (48, 16, 16, 3), np.uint8), labels=np.arange(48) % 2)
    run = pretrain(config(Path("x.npz"), tmp_path / "runs", name="r", length="1it", views=2, evaluate=False)).run
    monkeypatch.chdir("/")
    assert len(find_run_data(run, read_run(run)[0]).train) == 36
    for text in ("[]", "{", '{"name": 3}'):
        (run / "data.json").write_text(text)
        with pytest.raises(UserError):
            read_run(run)


def test_options_are_chosen_on_training_images_that_are_always_the_same():
    x = torch.arange(80, dtype=torch.uint8).view(80, 1, 1, 1).expand(-1, 1, 4, 4)
    labels = (torch.arange(80) < 60).long()
    own = from_tensors(Split(x[:60], labels[20:]), Split(x[60:], labels[:20]), classes=("a", "b"))
    plain = Config(data="x")
    data = on_validation(plain, own)
    held, left = ({int(image[0, 0, 0]) for image in split.images} for split in (data.test, data.train))
    assert (len(held), held | left, held & left) == (6, set(range(60)), set())
    assert data.test.labels.sum() == 4  # as many of each class as there are in 60
    again = on_validation(replace(plain, seed=7), own)
    assert torch.equal(again.test.images, data.test.images)
    with pytest.raises(UserError, match="whole groups"):
        on_validation(replace(plain, group="patient"), own)
    with pytest.raises(UserError, match="brings no held-out split"):
        on_validation(plain, from_tensors(Split(x, labels), classes=("a", "b")))
