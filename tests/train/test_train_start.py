"""Runs that begin with published weights: what they take over, stay near to, are compared with, and keep."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from frossl.core.length import Length
from frossl.core.progress import Progress
from frossl.core.types import UserError
from frossl.evals.suite import Evaluation
from frossl.evals.verdict import outcome, rank_state, verdict
from frossl.methods import METHODS
from frossl.nn.encoder import load_encoder
from frossl.nn.optim import Anchor
from frossl.report.verdict import judge
from frossl.runs.config import Config
from frossl.runs.encoders import START_FILE
from frossl.runs.log import read_rows
from frossl.runs.record import read_config, read_record
from frossl.train.plan import CONTINUED_LR, LR, make_plan
from frossl.train.pretrain import pretrain
from frossl.train.schedule import thaw
from frossl.train.start import BELOW_START, FAR_FROM_START, StartWatch
from frossl.train.supervised import supervised_encoder

pytestmark = pytest.mark.usefixtures("no_reports")
TINY = {"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}


@pytest.fixture
def config(tmp_path):
    """A run of four steps on pictures of one channel, from the weights of a net for three."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "set.npz", images=rng.integers(0, 256, (60, 12, 12), dtype=np.uint8), labels=np.arange(60) % 2)
    torch.manual_seed(3)
    torch.save(timm.create_model("resnet18", **TINY).state_dict(), tmp_path / "w.pt")
    return Config(
        data=str(tmp_path / "set.npz"),
        init=str(tmp_path / "w.pt"),
        out=tmp_path,
        name="run",
        objective=METHODS["frossl"].Config(projector="8-bn-relu-8"),
        backbone_options=json.dumps(TINY),
        batch=16,
        size=16,
        length="4it",
        log_every=1,
        monitor_every="1it",
        telemetry_every=0,
        evaluate=False,
        held_out=0.4,
        workers=0,
        data_dir=tmp_path / "data",
    )


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_encoder(path)[0].state_dict()


def test_a_run_keeps_its_own_copy_of_the_start_and_its_mean(config, tmp_path):
    run = pretrain(config).run
    start, spec = load_encoder(run / START_FILE)
    whole = torch.load(tmp_path / "w.pt", weights_only=True)["conv1.weight"]
    assert torch.allclose(start.state_dict()["conv1.weight"], whole.sum(1, keepdim=True))  # timm's rule for one channel
    assert spec.mean == pytest.approx((sum((0.485, 0.456, 0.406)) / 3,))
    assert read_config(run)["config"]["lr"] == CONTINUED_LR
    looks = [row for row in read_rows(run / "metrics.jsonl") if row["kind"] == "monitor"]
    assert [row["step"] for row in looks] == [0, 1, 2, 3, 4]
    assert all(0 <= row["start_neighbours"] <= 1 for row in looks[1:])


def test_a_run_goes_on_without_the_file_it_started_from(config, tmp_path):
    straight = pretrain(dataclasses.replace(config, name="straight")).run
    half = pretrain(dataclasses.replace(config, length="2it")).run
    (tmp_path / "w.pt").unlink()
    gone_on = pretrain(dataclasses.replace(config, length="4it"), resume=half).run
    assert weights(gone_on / START_FILE).keys() == weights(straight / START_FILE).keys()
    (gone_on / START_FILE).unlink()
    with pytest.raises(UserError, match=START_FILE):
        pretrain(dataclasses.replace(config, length="6it"), resume=gone_on)


def test_frozen_the_encoder_stays_and_heads_learn(config):
    run = pretrain(dataclasses.replace(config, freeze="100%", batch_norm="joint")).run
    before, after = weights(run / START_FILE), weights(run / "encoder.safetensors")
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert moved
    assert all("running_" in k or "num_batches" in k for k in moved)  # joint batch norms see the new images
    losses = [row["loss"] for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]
    assert len(set(losses)) == 4


def test_batch_norms_keep_their_statistics_and_learn_their_scales(config):
    run = pretrain(dataclasses.replace(config, lr=0.02)).run
    before, after = weights(run / START_FILE), weights(run / "encoder.safetensors")
    assert all(torch.equal(before[k], after[k]) for k in before if "running_" in k or "num_batches" in k)
    assert not torch.equal(before["bn1.weight"], after["bn1.weight"])
    assert read_config(run)["config"]["batch_norm"] == "frozen"


def test_an_anchor_keeps_the_encoder_nearer_to_the_start(config):
    def distance(name: str, **more: float) -> float:
        run = pretrain(dataclasses.replace(config, name=name, lr=0.02, **more)).run
        before, after = weights(run / START_FILE), weights(run / "encoder.safetensors")
        return sum((after[k] - before[k]).square().sum().item() for k in before if k.endswith(("weight", "bias")))

    assert distance("held", anchor=400.0) < 0.7 * distance("free")


def test_an_anchor_pulls_by_rate_and_strength_and_not_at_a_bad_step():
    p = torch.nn.Parameter(torch.tensor([1.0, 3.0]))
    anchor = Anchor([(p, torch.zeros(2))], strength=2.0)
    optimizer = torch.optim.SGD([p], lr=0.1)
    anchor.pull(optimizer, torch.tensor(0.0))
    assert p.tolist() == [1.0, 3.0]
    anchor.pull(optimizer, torch.tensor(1.0))
    assert p.tolist() == pytest.approx([0.8, 2.4])


def test_layers_near_the_image_learn_more_slowly(config):
    run = pretrain(dataclasses.replace(config, layer_decay=0.1, lr=0.02)).run
    before, after = weights(run / START_FILE), weights(run / "encoder.safetensors")
    moved = {k: (after[k] - before[k]).abs().max().item() for k in ("conv1.weight", "layer4.0.conv2.weight")}
    assert 0 < moved["conv1.weight"] < 0.2 * moved["layer4.0.conv2.weight"]


def test_the_start_is_a_control_and_the_verdict_is_against_it_first(config):
    run = pretrain(dataclasses.replace(config, evaluate=True)).run
    record = read_record(run)
    assert record.evaluation is not None
    assert {"pretrained", "start", "untrained", "raw pixels"} <= record.evaluation.arms.keys()
    assert any("Against the start" in text for text in judge(record, 3.0).more)


@pytest.mark.parametrize(("knn", "said"), [(0.9, "helped"), (0.72, "no clear"), (0.5, "harm")])
def test_a_better_start_is_what_pretraining_must_beat(knn, said):
    arms = {"pretrained": {"knn": knn}, "start": {"knn": 0.7}, "untrained": {"knn": 0.2}, "raw pixels": {"knn": 0.3}}
    found = outcome(Evaluation(arms, {}, 1000, targets="classes"))
    assert found is not None
    assert said in found.headline
    assert found.against == "the start"
    assert any("other controls" in note for note in found.notes)


def test_it_is_said_at_once_when_features_become_worse_than_the_start():
    torch.manual_seed(0)
    h = torch.randn(500, 16)
    watch = StartWatch({"knn": 0.8, "effective_rank": 10.0}, h, torch.arange(500) % 5)
    assert watch.compare(h) == {"start_neighbours": 1.0}
    assert watch.judge({"knn": 0.79}) is None
    found = watch.judge({"knn": 0.5})
    assert found is not None
    assert found["state"] == BELOW_START
    assert all(flag in found["remedy"] for flag in ("--lr", "--freeze", "--anchor"))
    assert watch.judge({"knn": 0.5}) is None  # said once
    assert watch.judge({"knn": 0.8}) == {"state": BELOW_START, "over": True}


def test_without_labels_lost_neighbours_or_rank_say_so():
    h = torch.randn(300, 16)
    watch = StartWatch({"effective_rank": 10.0}, h)
    kept = watch.compare(torch.randn(300, 16))
    assert kept["start_neighbours"] < 0.1
    found = watch.judge({"effective_rank": 9.0} | kept)
    assert found is not None
    assert found["state"] == FAR_FROM_START  # which may be better or worse
    assert StartWatch({"effective_rank": 10.0}, h).judge({"effective_rank": 2.0, "start_neighbours": 0.9}) is not None
    assert StartWatch({"effective_rank": 10.0}, h).judge({"effective_rank": 9.0, "start_neighbours": 0.9}) is None


def test_the_start_decides_the_net_and_another_is_refused(config):
    first = pretrain(config).run
    with pytest.raises(UserError, match="resnet34"):
        pretrain(dataclasses.replace(config, name="other", init=str(first), backbone="resnet34"))
    second = dataclasses.replace(config, name="second", init=str(first), backbone_options="{}", size=None)
    run = pretrain(second).run
    about = read_config(run)
    assert about["encoder"]["options"] == TINY
    assert about["config"]["size"] == 16
    start, end = weights(run / START_FILE), weights(first / "encoder.safetensors")
    assert all(torch.equal(start[k], end[k]) for k in end)


@pytest.mark.parametrize("wrong", [{"freeze": "5%"}, {"anchor": 1.0}, {"layer_decay": 1.5}, {"batch_norm": "frozen"}])
def test_what_needs_a_start_is_refused_without_one(config, wrong):
    with pytest.raises(UserError):
        dataclasses.replace(config, init=None, **wrong)


def test_random_weights_keep_their_rate(config):
    from frossl.runs.data import load_run_data

    data = load_run_data(config)
    assert make_plan(dataclasses.replace(config, init=None), data).config.lr == LR


def test_a_comparison_that_was_stopped_goes_on_with_the_net_of_the_start(config, tmp_path):
    first = pretrain(config).run
    planned = dataclasses.replace(config, name="arm", init=str(first), backbone_options="{}", size=None, length="2it")
    run = pretrain(planned).run
    assert read_config(run)["config"]["backbone_options"] != "{}"
    assert pretrain(dataclasses.replace(planned, length="3it"), resume=run).run == run


def test_the_supervised_arm_begins_with_the_start_too(config, tmp_path):
    run = pretrain(dataclasses.replace(config, freeze="25%")).run
    (tmp_path / "w.pt").unlink()
    supervised_encoder(run)
    start, again = weights(run / START_FILE), weights(run / "supervised" / START_FILE)
    assert all(torch.equal(start[k], again[k]) for k in start)


def test_the_rate_of_a_frozen_encoder_warms_up_once_it_is_free():
    progress = Progress(Length(100, "it"), 100)
    shares = []
    for progress.step in (0, 9, 10, 15, 20, 90):
        shares.append(thaw(progress, warmup=0.1, frozen=0.1))
    assert shares == pytest.approx([0, 0, 0, 0.5, 1, 1])


def test_features_that_are_not_finite_are_said_and_stop_nothing():
    watch = StartWatch({"effective_rank": 3.0}, torch.randn(20, 4))
    assert watch.judge({"start_neighbours": 0.5}) is not None


def test_without_labels_the_verdict_names_the_start():
    ranks = {"pretrained": 3.0, "start": 20.0, "untrained": 2.0}
    evaluation = Evaluation({arm: {"effective_rank": r} for arm, r in ranks.items()}, {}, 1000)
    assert "start 20.0" in verdict(evaluation)
    assert "Close to collapse" in rank_state(3.0, 20.0, 1000)


def test_the_range_of_the_start_is_taken_over(config, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(1000, 3000, (60, 12, 12), dtype=np.uint16)
    np.savez(tmp_path / "deep.npz", images=images)
    first = pretrain(dataclasses.replace(config, name="a", init=None, data=str(tmp_path / "deep.npz"))).run
    np.savez(tmp_path / "darker.npz", images=images // 2)
    more = dataclasses.replace(config, init=str(first), backbone_options="{}", name="b")
    run = pretrain(dataclasses.replace(more, data=str(tmp_path / "darker.npz"))).run
    assert read_config(run)["encoder"]["range"] == read_config(first)["encoder"]["range"]
    with pytest.raises(UserError):  # bytes, to which that range says nothing
        pretrain(dataclasses.replace(more, name="c"))
