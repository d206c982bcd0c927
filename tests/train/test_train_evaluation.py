"""What is kept of evaluations, and the supervised arm."""

from __future__ import annotations

import json
import os
import signal
from contextlib import nullcontext
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from frossl.commands import evaluate as evaluate_command
from frossl.core.launch import Launch
from frossl.core.types import UserError
from frossl.data import DATASETS
from frossl.data.open import resolve_source
from frossl.evals.extract import Extractor
from frossl.evals.suite import Evaluation
from frossl.nn.encoder import load_encoder
from frossl.runs.checkpoint import newest_checkpoint
from frossl.runs.config import Config
from frossl.runs.directory import FAILED, read_run
from frossl.runs.log import read_rows
from frossl.runs.record import keep_evaluation, read_record
from frossl.train import evaluate as evaluate_module
from frossl.train.embed import EmbedOptions, open_images_and_encoder
from frossl.train.evaluate import evaluate_run
from frossl.train.pretrain import pretrain
from frossl.train.replay import replay
from frossl.train.side_by_side import evaluate_encoders
from frossl.train.step import Stepper
from frossl.train.supervised import supervised_encoder
from report.tiny_runs import config, folder

pytestmark = pytest.mark.usefixtures("no_reports", "two_penalties")


def evaluation(source: str, held_out: int = 9, **arms: dict[str, float]) -> Evaluation:
    return Evaluation(arms, {name: name for values in arms.values() for name in values}, held_out, source)


@pytest.fixture
def kept(tmp_path):
    """Keeps an evaluation in a file and gives what is in it."""

    def keep(name: str, new: Evaluation, own: str = "/a/test") -> dict:
        keep_evaluation(tmp_path / "evaluation.json", name, new, own)
        return json.loads((tmp_path / "evaluation.json").read_text())

    return keep


def test_values_of_one_source_are_merged_and_arms_that_were_not_measured_again_stay(kept):
    kept("test", evaluation("/a/test", pretrained={"knn": 0.5}, supervised={"knn": 0.9}))
    got = kept("test", evaluation("/a/test", pretrained={"knn": 0.6, "ridge": 0.4}))["test"]
    assert got["arms"] == {"pretrained": {"knn": 0.6, "ridge": 0.4}, "supervised": {"knn": 0.9}}
    assert got["protocols"] == {"knn": "knn", "ridge": "ridge"}
    assert got["source"] == "/a/test"


def test_folders_of_one_name_are_kept_apart_whatever_comes_first(kept):
    others = [evaluation(source, pretrained={"knn": knn}) for source, knn in (("/b/test", 0.2), ("/c/b/test", 0.3))]
    for other in others:
        kept("test", other)
    kept("test", evaluation("/a/test", pretrained={"knn": 0.1}))
    got = kept("test", evaluation("/b/test", pretrained={"ridge": 0.7}))
    assert {key: v["arms"]["pretrained"] for key, v in got.items()} == {
        "b/test": {"knn": 0.2, "ridge": 0.7},
        "c/b/test": {"knn": 0.3},
        "test": {"knn": 0.1},
    }


def test_a_data_set_and_a_folder_of_its_name_are_kept_apart(kept):
    kept("cifar10", evaluation("/x/cifar10", pretrained={"knn": 0.1}), own="/x/cifar10")
    got = kept("cifar10", evaluation("cifar10", pretrained={"knn": 0.2}), own="/x/cifar10")
    assert list(got) == ["cifar10", "data set cifar10"]
    assert resolve_source("cifar10") == "cifar10"
    assert "cifar10" in DATASETS
    assert resolve_source("./cifar10") == str(Path.cwd() / "cifar10")


def test_arms_that_were_measured_are_kept_if_a_later_one_is_stopped(tmp_path):
    class Slow(nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    run = pretrain(config(folder(tmp_path / "images"), tmp_path, name="r")).run
    (run / "evaluation.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(run, protocols=("knn",), others={"supervised": Slow()})
    (found,) = json.loads((run / "evaluation.json").read_text()).values()
    assert found["arms"].keys() == {"pretrained", "untrained"}
    assert read_record(run).evaluation is not None


def test_values_of_other_images_are_not_kept_beside_new_ones(kept):
    kept("test", evaluation("/a/test", held_out=9, pretrained={"knn": 0.5}))
    got = kept("test", evaluation("/a/test", held_out=8, pretrained={"ridge": 0.4}))["test"]
    assert got["arms"] == {"pretrained": {"ridge": 0.4}}
    assert got["protocols"] == {"ridge": "ridge"}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("arms")
    folder(root / "images")
    return root


@pytest.fixture(scope="module")
def run(place) -> Path:
    """Six steps of eight images; warm-up by the epoch."""
    asked = config(place / "images", place, name="run", evaluate=False, length="6it", warmup="1ep")
    return pretrain(asked).run


def test_the_supervised_arm_is_trained_once_for_as_many_steps_and_evaluated_beside_the_others(run):
    encoder = supervised_encoder(run)
    about = json.loads((run / "supervised/config.json").read_text())
    rows = [row for row in read_rows(run / "supervised/metrics.jsonl") if row["kind"] == "train"]
    mine = json.loads((run / "config.json").read_text())
    assert about["config"]["method"] == "supervised"
    assert (rows[-1]["step"], rows[-1]["images"]) == (6, 48)
    for same in ("views", "batch", "encoder", "images"):
        assert about[same] == mine[same]
    for same in ("optimizer", "lr", "warmup", "seed", "weight_decay"):
        assert about["config"][same] == mine["config"][same]
    before = newest_checkpoint(run / "supervised").stat().st_mtime_ns
    again = supervised_encoder(run)
    assert newest_checkpoint(run / "supervised").stat().st_mtime_ns == before
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in encoder.state_dict().items())
    own, _ = load_encoder(run / "encoder.safetensors")
    assert any(not torch.equal(v, own.state_dict()[k]) for k, v in encoder.state_dict().items())
    got = evaluate_run(run, others={"supervised": encoder}, protocols=("knn", "rank"))
    assert list(got.arms) == ["pretrained", "untrained", "supervised", "raw pixels", "largest class"]
    saved = json.loads((run / "evaluation.json").read_text())["images"]["arms"]
    assert saved["supervised"].keys() == saved["pretrained"].keys()


def test_an_interrupted_supervised_arm_goes_on(place, run, monkeypatch):
    take = Stepper.__call__

    def interrupt_at_four(self, batch, step, *rest):
        if step == 4:  # the first three are also taken to measure how long they last
            os.kill(os.getpid(), signal.SIGINT)
        return take(self, batch, step, *rest)

    whole = supervised_encoder(run).state_dict()
    other = pretrain(config(place / "images", place, name="second", evaluate=False, length="6it", warmup="1ep")).run
    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "__call__", interrupt_at_four)
        with pytest.raises(KeyboardInterrupt):
            supervised_encoder(other)
    assert newest_checkpoint(other / "supervised").stem == "step-000000005"
    resumed = supervised_encoder(other).state_dict()
    assert all(torch.equal(v, resumed[k]) for k, v in whole.items())


def test_a_run_by_the_clock_gives_its_steps(place):
    asked = config(place / "images", place, name="clock", evaluate=False, length="0.02min", warmup="0.002min")
    run = pretrain(asked).run
    steps = int(newest_checkpoint(run).stem.partition("-")[2])
    supervised_encoder(run)
    about = json.loads((run / "supervised/config.json").read_text())["config"]
    assert about["length"] == f"{steps}it"
    assert about["warmup"] == "10.000000%"


def test_without_labels_there_is_no_supervised_arm_and_nothing_is_left(place):
    asked = config(folder(place / "flat", classes=()), place, name="flat-run", evaluate=False, length="2it")
    run = pretrain(asked).run
    with pytest.raises(UserError, match="learns from labels"):
        supervised_encoder(run)
    assert not (run / "supervised").exists()


def test_a_module_of_ones_own_has_a_supervised_arm(place):
    def mine() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    asked = config(place / "images", place, name="own", evaluate=False, length="2it")
    run = pretrain(asked, backbone=mine()).run
    encoder = supervised_encoder(run, backbone=mine())
    assert isinstance(encoder, nn.Sequential)


@pytest.mark.parametrize("evaluate", [True, False])
@pytest.mark.usefixtures("reports")
def test_every_run_ends_with_a_report(place, evaluate):
    name = f"report-{evaluate}"
    run = pretrain(config(place / "images", place, name=name, evaluate=evaluate, length="2it")).run
    assert ("Not evaluated" in (run / "report.html").read_text()) is not evaluate


def test_grey_and_colour_of_other_sizes_and_classes_are_transferred_to(place, run):
    """A colour run on one-channel data of three classes, whose pictures are larger, and the other way."""
    from PIL import Image

    other = folder(place / "other", classes=("a", "b", "c"), count=24)
    for path in other.rglob("*.png"):
        Image.open(path).convert("L").resize((24, 20)).save(path)
    got = evaluate_run(run, source=str(other), protocols=("knn", "linear", "rank", "robustness"))
    assert got.arms["raw pixels"]["knn"] <= 1
    saved = json.loads((run / "evaluation.json").read_text())
    assert saved["other"]["source"] == str(other.resolve())

    grey = pretrain(config(other, place, name="grey", evaluate=False, length="2it", channels=1)).run
    got = evaluate_run(grey, source=str(place / "images"), protocols=("knn", "robustness"))
    assert "knn" in got.arms["pretrained"]
    assert "knn_under_gray" not in got.arms["pretrained"]


def test_labels_of_other_data_are_used_although_those_of_the_run_were_not(place):
    run = pretrain(config(place / "images", place, name="no-labels", labels=False, evaluate=False, length="2it")).run
    other = folder(place / "labelled", count=20)
    assert "knn" not in evaluate_run(run, protocols=("knn", "rank")).arms["pretrained"]
    assert "knn" in evaluate_run(run, source=str(other), protocols=("knn", "rank")).arms["pretrained"]


def test_max_pixels_is_for_other_images_than_those_of_the_run(place, run):
    other = folder(place / "small", count=20)
    with pytest.raises(UserError, match="--max-pixels is for"):
        evaluate_run(run, protocols=("rank",), max_pixels=10**6)
    with pytest.raises(UserError, match=r"more than 10,.*--max-pixels"):
        evaluate_run(run, source=str(other), protocols=("rank",), max_pixels=10)


def test_the_range_of_a_run_holds_for_whatever_is_evaluated_with_it(place):
    """The same values as training saw, for its own images, others of the same kind and the exported encoder."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 3000, (20, 16, 16), dtype=np.uint16)
    for name, x in (("ct", values), ("narrow", values // 4 + 600), ("bytes", (values // 12).astype(np.uint8))):
        np.savez(place / f"{name}.npz", images=x, labels=np.arange(20) % 2)
    run = pretrain(config(place / "ct.npz", place, name="ct", evaluate=False, length="2it", channels=None)).run
    assert read_run(run)[0].range == load_encoder(run / "encoder.safetensors")[1].range == (0, 2999)
    seen, real = [], evaluate_module.evaluate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_module, "evaluate", lambda *a, **k: seen.append(a[2]) or real(*a, **k))
        for other in ("ct", "narrow"):
            evaluate_run(run, source=str(place / f"{other}.npz"), protocols=("rank",))
        with pytest.raises(UserError, match=r"holds uint8.*uint16 from 0 2999"):
            evaluate_run(run, source=str(place / "bytes.npz"), protocols=("rank",))
    assert [data.range for data in seen] == [(0, 2999)] * 2
    assert seen[1].train.images.max() < 150
    assert pretrain(read_run(run)[0], resume=run).run == run


def test_a_supervised_arm_killed_before_its_first_save_begins_again(place):
    run = pretrain(config(place / "images", place, name="killed", evaluate=False, length="2it")).run
    (run / "supervised" / "checkpoints").mkdir(parents=True)
    supervised_encoder(run)
    assert newest_checkpoint(run / "supervised")


def test_a_supervised_arm_of_a_run_whose_best_checkpoint_alone_is_left(place):
    run = pretrain(config(place / "images", place, name="best", evaluate=False, length="2it", monitor_every="1it")).run
    for path in (run / "checkpoints").glob("step-*"):
        path.unlink()
    supervised_encoder(run)
    assert newest_checkpoint(run / "supervised")


def test_what_is_measured_is_computed_in_the_precision_of_the_run_also_without_training(place, monkeypatch):
    """cuDNN computes convolutions in TF32 unless it is told not to."""
    run = pretrain(config(place / "images", place, name="exact", evaluate=False, length="2it", precision="32")).run
    seen = []
    for room in ("train.evaluate", "train.side_by_side", "train.embed"):
        monkeypatch.setattr(f"frossl.{room}.settle", lambda *how: seen.append(how))
    wanted = (torch.device("cpu"), "32", False)
    evaluate_run(run, protocols=("rank",), device="cpu")
    source = str(place / "images")
    of_images = Config(data=source, device="cpu", precision="32", workers=0, data_dir=place / "data")
    evaluate_encoders(of_images, [str(run)], protocols=("rank",))
    given = EmbedOptions(data=source, device="cpu", workers=0, data_dir=place / "data")
    open_images_and_encoder(given, str(run), Console(quiet=True))
    assert seen == [wanted] * 3


def test_a_run_that_cannot_be_written_to_is_measured_all_the_same(place, monkeypatch):
    run = pretrain(config(place / "images", place, name="fixed", evaluate=False, length="2it")).run
    monkeypatch.setattr(os, "access", lambda *_: False)
    shown = StringIO()
    assert "pretrained" in evaluate_run(run, protocols=("knn",), console=Console(file=shown, width=300)).arms
    assert f"{run} cannot be written to" in shown.getvalue()
    assert not (run / "evaluation.json").exists()


def test_another_kind_of_device_chooses_its_own_precision(place, monkeypatch):
    """A run that was trained in bfloat16 on a GPU is not evaluated in it on a processor that has it not."""
    run = pretrain(config(place / "images", place, name="gpu", evaluate=False, length="2it", precision="bf16")).run
    about = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(about | {"device": "cuda:0"}))
    monkeypatch.setattr("frossl.train.resources.cpu_has_bf16", lambda: False)
    seen = []
    extractor = Extractor.__init__
    monkeypatch.setattr(
        Extractor, "__init__", lambda self, **how: (seen.append(how["half"]), extractor(self, **how))[1]
    )
    evaluate_run(run, protocols=("rank",), device="cpu")
    assert seen == [None]


def test_a_run_in_tf32_is_evaluated_without_a_gpu_over_ranks_and_with_labels_and_not_replayed(place, monkeypatch):
    run = pretrain(config(place / "images", place, name="tf32", evaluate=False, length="2it")).run
    about = json.loads((run / "config.json").read_text())
    about = about | {"device": "cuda:0", "config": about["config"] | {"precision": "tf32"}}
    (run / "config.json").write_text(json.dumps(about))
    seen = []
    monkeypatch.setattr("frossl.commands.evaluate.launched", lambda: Launch(ranks=2))
    monkeypatch.setattr("frossl.commands.evaluate.joined", lambda asked: nullcontext(seen.append(asked.precision)))
    evaluate_command.run(
        [str(run), "--device", "cpu", "--protocol", "knn", "--arms", "supervised"], Console(quiet=True)
    )
    assert seen == ["auto"]
    assert {"pretrained", "supervised"} <= json.loads((run / "evaluation.json").read_text())["images"]["arms"].keys()
    (run / FAILED).mkdir()
    (run / FAILED / "step.json").write_text("{}")
    with pytest.raises(UserError, match="was trained on cuda:0 in tf32, which cpu has not"):
        replay(run, device="cpu")


def test_what_is_given_as_the_untrained_encoder_stays_as_it_is(place):
    mine = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    run = pretrain(config(place / "images", place, name="kept", evaluate=False, length="2it"), backbone=mine).run
    before = {name: value.clone() for name, value in mine.train().state_dict().items()}
    evaluate_run(run, backbone=mine, protocols=("knn",))
    assert mine.training
    for name, value in mine.state_dict().items():
        assert torch.equal(value, before[name]), name


class Overflowing(nn.Sequential):
    """An encoder that is well while it trains and gives infinities in eval mode, as of batch norms gone wrong."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if self.training else super().forward(x) / 0


@pytest.mark.usefixtures("reports")
def test_figures_of_features_that_are_not_finite_are_left_out_and_the_run_ends_well(tmp_path):
    made = config(folder(tmp_path / "images"), tmp_path, length="4it", evaluate=True)
    outcome = pretrain(made, backbone=Overflowing())
    assert outcome.evaluation is not None
    assert outcome.evaluation.arms["pretrained"] == {}
    assert "knn" in outcome.evaluation.arms["raw pixels"]
    monitored = [row for row in read_rows(outcome.run / "metrics.jsonl") if row["kind"] == "monitor"]
    assert monitored
    assert not any({"knn", "probe", "effective_rank"} & row.keys() for row in monitored)
    assert "not finite" in (outcome.run / "report.html").read_text()
