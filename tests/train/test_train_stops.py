"""Killed anywhere, gone on with: the run that nobody killed. The long form of this is benchmarks/stops.py."""

from __future__ import annotations

import pytest
from stop_runs import killed_once, stopped_midway, timed
from test_train_loop import folder_of_images


@pytest.mark.parametrize("ranks", [1, 2])
def test_kills_at_random_moments_change_nothing(tmp_path, ranks):
    images = folder_of_images(tmp_path / "images")
    seconds = timed(images, tmp_path / "runs", "whole", ranks)
    for number in range(3):
        got = killed_once(images, tmp_path / "runs", number, "frossl", ranks, tmp_path / "runs" / "whole", seconds)
        assert got["resumed"]
        assert got["same"]
        assert got["lost_steps"] <= 3  # what a save every three steps allows


@pytest.mark.parametrize("ranks", [1, 2])
def test_no_image_is_seen_twice_or_missed_by_a_run_stopped_within_an_epoch(tmp_path, ranks):
    images = folder_of_images(tmp_path / "images", sizes=((16, 16), (20, 14), (33, 40)))
    timed(images, tmp_path / "runs", "whole", ranks, seen=True, workers=0, size=16)
    for step, workers in ((6, 2), (13, 0)):
        got = stopped_midway(images, tmp_path / "runs", step, workers, ranks, tmp_path / "runs" / "whole")
        assert got["codes"] == [0] * ranks
        assert (got["differing"], got["repeated"], got["missed"]) == (0, 0, 0)
        assert got["same"]
