"""Classes of uneven size while training: what the monitor measures then, and which checkpoint is the best."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from frossl.methods import METHODS
from frossl.report.figures import training_figures
from frossl.runs.checkpoint import load_checkpoint
from frossl.runs.config import Config
from frossl.runs.log import read_rows
from frossl.runs.record import read_record
from frossl.train.pretrain import pretrain

pytestmark = pytest.mark.usefixtures("no_reports")


def config(tmp_path, rare: int) -> Config:
    """A run of three steps on 60 pictures, of which every ``rare``-th is of the second class."""
    pictures = np.random.default_rng(0).integers(0, 256, (60, 12, 12), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=pictures, labels=(np.arange(60) % rare == 0).astype(int))
    return Config(
        data=str(tmp_path / "set.npz"),
        out=tmp_path,
        name="run",
        objective=METHODS["frossl"].Config(projector="8-bn-relu-8"),
        backbone_options='{"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}',
        batch=16,
        size=12,
        length="3it",
        monitor_every="1it",
        evaluate=False,
        held_out=0.4,
        workers=0,
        data_dir=tmp_path / "data",
    )


def monitored(run) -> list[set[str]]:
    where = {"kind", "step", "epoch", "images", "seconds", "look_seconds"}
    return [row.keys() - where for row in read_rows(run / "metrics.jsonl") if row["kind"] == "monitor"]


@pytest.mark.parametrize(("rare", "more"), [(2, set()), (6, {"knn_balanced"})])
def test_balanced_accuracy_is_logged_and_drawn_where_classes_are_uneven(tmp_path, rare, more):
    run = pretrain(config(tmp_path, rare)).run
    assert monitored(run) == [{"effective_rank", "knn", "probe", *more}] * 3
    (chart,) = (f for f in training_figures([read_record(run)]) if f["label"] == "Accuracy while training")
    assert [trace["name"] for trace in chart["data"]] == ["kNN", "linear probe"] + ["kNN, balanced"] * bool(more)


@pytest.mark.parametrize(("balanced", "best"), [((0.5, 0.7, 0.6), 2), (None, 3)])
def test_the_best_checkpoint_is_the_best_by_balanced_accuracy_if_there_is_one(tmp_path, monkeypatch, balanced, best):
    looks = iter(range(3))

    def look(*_, **__):
        i = next(looks)
        return {"knn": 0.8 + 0.05 * i} | ({"knn_balanced": balanced[i]} if balanced else {}), torch.randn(24, 8)

    monkeypatch.setattr("frossl.train.loop.measure_encoder", look)
    run = pretrain(config(tmp_path, 6)).run
    assert load_checkpoint(run / "checkpoints" / "best.safetensors")["step"] == best
