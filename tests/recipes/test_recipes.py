"""Every recipe builds, trains two steps on synthetic images, and says what it is."""

import dataclasses

import pytest
import torch

from frossl.data import DATASETS, Dataset, Split
from frossl.recipes import RECIPES
from frossl.train import run as runs
from frossl.train.log import read_rows


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_trains_two_steps_on_synthetic_images(name, tmp_path, monkeypatch):
    config = RECIPES[name]()
    record = DATASETS[config.data]
    side = 32
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        images = torch.randint(0, 256, (count, record.channels, side, side), generator=generator, dtype=torch.uint8)
        return Split(images, torch.arange(count) % 2)

    size = (side, side)
    data = Dataset(
        config.data, split(16), split(8), ("a", "b"), record.channels, record.mean, record.std, size, size, size, "made"
    )
    monkeypatch.setattr(runs, "open", lambda *_: data)
    small = dataclasses.replace(
        config,
        precision="32",  # in bf16, oneDNN's gradient of a stride-2 convolution on maps of one pixel is not finite
        length="2it",
        batch=4,
        size=16,
        out=tmp_path,
        evaluate=False,
        log_every=1,
        warmup="50%",
        device="cpu",
    )
    run = runs.pretrain(small).run
    rows = [row for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]
    assert len(rows) == 2
    assert config.recipe == name
    assert RECIPES[name].__doc__
    saved, _ = runs.read_run(run)
    assert saved == small
