"""Killed anywhere, gone on with: the run that nobody killed. The long form of this is benchmarks/stops.py."""

from __future__ import annotations

import os
import shutil
import time

import pytest
from stop_runs import asked_for, killed_once, same_run, started, stopped_midway, whole_run
from test_train_loop import folder_of_images, losses

from frossl.core.types import UserError
from frossl.runs.directory import LOG, read_run
from frossl.train.pretrain import pretrain
from rank_programs import ended, forked

pytestmark = pytest.mark.usefixtures("no_reports")


@pytest.mark.parametrize(("ranks", "kills"), [(1, 3), (2, 2)])
def test_kills_at_random_moments_change_nothing(tmp_path, ranks, kills):
    images = folder_of_images(tmp_path / "images")
    work = whole_run(images, tmp_path / "runs", "whole", ranks)
    for number in range(kills):
        got = killed_once(images, tmp_path / "runs", number, "frossl", ranks, tmp_path / "runs" / "whole", work)
        assert got["resumed"]
        assert got["same"]
        assert got["lost_steps"] <= 3  # what a save every three steps allows


@pytest.mark.parametrize(("ranks", "stops"), [(1, ((6, 2), (13, 0))), (2, ((13, 2),))])
def test_no_image_is_seen_twice_or_missed_by_a_run_stopped_within_an_epoch(tmp_path, ranks, stops):
    images = folder_of_images(tmp_path / "images", sizes=((16, 16), (20, 14), (33, 40)))
    whole_run(images, tmp_path / "runs", "whole", ranks, seen=True, workers=0, size=16)
    for step, workers in stops:
        got = stopped_midway(images, tmp_path / "runs", step, workers, ranks, tmp_path / "runs" / "whole")
        assert got["died"] == [9] * ranks
        assert got["codes"] == [0] * ranks
        assert (got["differing"], got["repeated"], got["missed"]) == (0, 0, 0)
        assert got["same"]


def test_a_run_that_ended_before_its_first_save_begins_again(tmp_path):
    """Its configuration is written and its first step taken when it is killed: there is nothing to go on with."""
    images, out = folder_of_images(tmp_path / "images"), tmp_path / "runs"
    whole_run(images, out, "whole", 1)
    asked = asked_for(images, out, "killed", checkpoint_every="100%")
    assert ended(started(out / "killed", asked, 1, seen=out / "killed", last=5)) == [9]
    assert losses(out / "killed")[-1][0] == 5
    assert not (out / "killed" / "checkpoints").exists()
    assert ended(started(out / "killed", asked, 1)) == [0]
    assert same_run(out / "killed", out / "whole")
    assert "before its first save" in " ".join((out / "killed.0.txt").read_text().split())


def test_a_trained_run_without_its_checkpoints_does_not_begin_again(tmp_path):
    images = folder_of_images(tmp_path / "images")
    run = pretrain(asked_for(images, tmp_path, "r", length="1it", checkpoint_every="1it")).run
    shutil.rmtree(run / "checkpoints")
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != LOG}
    with pytest.raises(UserError, match="has no checkpoint"):
        pretrain(read_run(run)[0], resume=run)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != LOG} == before


def test_what_does_not_end_is_killed(tmp_path):
    quick, stuck = (forked(lambda n=n: time.sleep(n), tmp_path / "said") for n in (0, 300))
    with pytest.raises(AssertionError, match="1 of 2 processes"):
        ended([quick, stuck], 2)
    with pytest.raises(ProcessLookupError):
        os.kill(stuck, 0)
