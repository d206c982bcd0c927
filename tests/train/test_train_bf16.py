"""In bf16 on the CPU a run whose maps shrink to one pixel stays finite, and is the same twice."""

import logging
import math

import pytest
from test_train_loop import config, folder_of_images, losses, same_weights

from frossl.train.pretrain import pretrain
from frossl.train.ranks import start


def test_fabric_says_nothing_of_its_own(tmp_path, caplog):
    caplog.set_level(logging.INFO, "lightning_fabric.utilities.rank_zero")
    start(config(tmp_path, tmp_path, precision="bf16"))
    assert not caplog.messages


@pytest.mark.usefixtures("fresh_memory_is_nan")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"micro_batch": 3},
        {"activation_checkpointing": True},
        {"activation_checkpointing": True, "micro_batch": 3},
        {"method": "byol", "objective": None},
    ],
    ids=["batch", "parts", "recomputed", "recomputed parts", "averaged"],
)
def test_maps_of_one_pixel(tmp_path, changes):
    images = folder_of_images(tmp_path / "images")
    runs = [
        pretrain(config(images, tmp_path, name=name, size=8, precision="bf16", length="8it", **changes)).run
        for name in ("once", "again")
    ]
    assert len(losses(runs[0])) == 8
    assert all(math.isfinite(loss) for _, loss in losses(runs[0]))
    assert losses(runs[0]) == losses(runs[1])
    assert same_weights(*runs)
