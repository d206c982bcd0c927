"""The loop: same seed same run, resumed run same run, and what stops it."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

import frossl.runs.data as run_data
import frossl.train.loop as loop
import frossl.train.pretrain as run_room
from frossl.core.progress import GEOMETRIC_FRACTIONS
from frossl.core.registry import Registry
from frossl.core.types import UserError
from frossl.data.types import Split
from frossl.evals.extract import Extractor
from frossl.evals.suite import untrained_encoder
from frossl.methods import METHODS
from frossl.methods.byol import BYOL
from frossl.methods.corinfomax import CorInfoMax
from frossl.methods.dino import DINO
from frossl.methods.mocov2plus import MoCoV2Plus
from frossl.methods.random import Random
from frossl.methods.supervised import Supervised
from frossl.methods.swav import SwAV
from frossl.nn.encoder import read_encoder
from frossl.runs.checkpoint import load_checkpoint, newest_checkpoint
from frossl.runs.config import Config
from frossl.runs.directory import LOCK, LOG, alone_in, new_run_directory, read_run
from frossl.runs.log import RunLog, read_rows
from frossl.train.evaluate import evaluate_run
from frossl.train.pretrain import pretrain
from frossl.train.resources import device_of
from frossl.train.step import NonFiniteError, Stepper
from frossl.views.recipes import Recipe, View
from rank_programs import ended, forked

pytestmark = pytest.mark.usefixtures("no_reports", "two_penalties")

TINY = '{"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}'


def folder_of_images(root: Path, count: int = 48, sizes=((16, 16),), classes: int = 2) -> Path:
    generator = torch.Generator().manual_seed(0)
    for i in range(count):
        width, height = sizes[i % len(sizes)]
        pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
        path = root / (f"class{i % classes}" if classes else "") / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(path)
    return root


def config(data: Path, out: Path, **changes) -> Config:
    return dataclasses.replace(
        Config(
            data=str(data),
            out=out,
            objective=METHODS["frossl"].Config(projector="16-bn-relu-16"),
            backbone_options=TINY,
            batch=8,
            length="3ep",
            log_every=1,
            monitor_every="50%",
            checkpoint_every="100%",
            evaluate=False,
            workers=0,
            held_out=0.2,
            data_dir=out / "data",
            rank_timeout=300.0,  # a busy machine is not a stopped rank
        ),
        **changes,
    )


def losses(run: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]


def same_weights(a: Path, b: Path) -> bool:
    one, two = load_file(a / "encoder.safetensors"), load_file(b / "encoder.safetensors")
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


class Killed(BaseException):
    """Ends a run at once, as a kill does, without ending the tests."""


def before_step(monkeypatch, step: int, do) -> None:
    """Lets ``do`` happen before ``step`` of the next runs."""
    take = Stepper.__call__

    def watched(self, batch, at, *rest):
        if at == step:
            do()
        return take(self, batch, at, *rest)

    monkeypatch.setattr(Stepper, "__call__", watched)


def die() -> None:
    raise Killed


def kill_at(monkeypatch, step: int) -> None:
    before_step(monkeypatch, step, die)


def killed_at(monkeypatch, step: int, asked: Config) -> Path:
    """The directory of a run that was killed in the middle of ``step``."""
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(Killed):
            pretrain(asked)
    return asked.out / str(asked.name)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return folder_of_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def mixed_images(tmp_path_factory) -> Path:
    return folder_of_images(tmp_path_factory.mktemp("mixed"), sizes=((16, 16), (20, 14), (33, 40)))


@pytest.mark.usefixtures("reports")
def test_a_run_leaves_its_directory_and_two_runs_of_one_seed_are_equal(images, tmp_path):
    first = pretrain(config(images, tmp_path, name="a")).run
    second = pretrain(config(images, tmp_path, name="b")).run
    other = pretrain(config(images, tmp_path, name="c", seed=1)).run
    assert losses(first) == losses(second)
    assert losses(first) != losses(other)
    assert same_weights(first, second)
    assert not same_weights(first, other)
    assert {p.name for p in first.iterdir()} == {
        "config.json",
        "data.json",
        "metrics.jsonl",
        "checkpoints",
        "encoder.safetensors",
        "report.html",
        "tensorboard",
        LOG,
        LOCK,
    }
    monitor = [row for row in read_rows(first / "metrics.jsonl") if row["kind"] == "monitor"]
    assert [row["step"] for row in monitor] == [6, 12]
    assert {"knn", "probe", "effective_rank"} <= monitor[-1].keys()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_does_not_change_the_run(mixed_images, tmp_path, workers):
    alone = pretrain(config(mixed_images, tmp_path, name="alone", length="1ep", size=16)).run
    shared = pretrain(config(mixed_images, tmp_path, name="shared", length="1ep", size=16, workers=workers)).run
    assert losses(alone) == losses(shared)
    assert same_weights(alone, shared)


@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
def test_a_run_killed_after_a_checkpoint_and_resumed_is_the_run_never_killed(images, tmp_path, optimizer):
    whole = pretrain(config(images, tmp_path, name="whole", optimizer=optimizer)).run

    def killed_in_the_ninth() -> None:
        before_step(pytest.MonkeyPatch(), 9, lambda: os.kill(os.getpid(), signal.SIGKILL))
        pretrain(config(images, tmp_path, name="killed", optimizer=optimizer, checkpoint_every="7it"))

    assert ended([forked(killed_in_the_ninth, tmp_path / "said")]) == [-signal.SIGKILL]
    killed = tmp_path / "killed"
    assert newest_checkpoint(killed).name == "step-000000007.safetensors"
    saved, _ = read_run(killed)
    pretrain(saved, resume=killed)
    assert losses(killed) == losses(whole)
    assert same_weights(killed, whole)


REMEMBERED = {
    "byol": (BYOL.Config(projector="16-bn-relu-16", predictor_width=16), ["method.target_head.0.weight"]),
    "mocov2plus": (
        MoCoV2Plus.Config(projector="16-relu-16", queue=24),
        ["method.target_head.0.weight", "method.queue"],
    ),
    "dino": (
        DINO.Config(projector="16-gelu-16", prototypes=32, teacher_temperature=0.07, teacher_warmup=2.5),
        ["method.target_head.0.0.weight", "method.centre"],
    ),
    "corinfomax": (CorInfoMax.Config(projector="16-bn-relu-16"), ["method.mean", "method.covariance"]),
    "swav": (SwAV.Config(projector="16-bn-relu-16", prototypes=12, queue=16, queue_from=1.0), ["method.queue"]),
}


@pytest.mark.parametrize("method", REMEMBERED)
def test_what_a_method_remembers_survives_a_kill(images, tmp_path, monkeypatch, method):
    objective, names = REMEMBERED[method]
    changes = {"method": method, "objective": objective}
    whole = pretrain(config(images, tmp_path, name="whole", **changes)).run
    killed = killed_at(monkeypatch, 9, config(images, tmp_path, name="killed", checkpoint_every="7it", **changes))
    before = load_checkpoint(newest_checkpoint(killed))
    assert before["step"] == 7
    pretrain(read_run(killed)[0], resume=killed)
    assert losses(killed) == losses(whole)
    assert same_weights(killed, whole)
    wanted, got = (load_checkpoint(newest_checkpoint(run))["learner"] for run in (whole, killed))
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    for name in [*names, *(["target.conv1.weight"] if method in ("byol", "mocov2plus", "dino") else [])]:
        assert not torch.equal(before["learner"][name], got[name])


def test_tensorboard_shows_no_rows_after_the_step_resumed_from(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, last, resumed in ((1, 9, 0), (8, 12, 7)):
        log = RunLog(tmp_path, resumed)
        for step in range(first, last + 1):
            log.row("train", step, {}, {"loss": 100.0 * first + step})
        log.close()
        time.sleep(1 - time.time() % 1)  # TensorBoard orders its files by the second they were made in
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/loss")
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [(event.step, event.value) for event in shown] == [(row["step"], row["loss"]) for row in rows]
    assert [row["step"] for row in rows] == list(range(1, 13))


def test_a_log_loses_a_line_that_a_crash_cut_off_and_no_other(tmp_path):
    log, rows = tmp_path / "metrics.jsonl", [{"step": step} for step in (1, 2, 3)]
    lines = [json.dumps(row) for row in rows]
    log.write_text("\n".join([*lines, '{"step": 4, "lo']))
    assert read_rows(log) == rows
    RunLog(tmp_path, 2).close()
    assert read_rows(log) == rows[:2]
    damaged = "\n".join([lines[0], '{"step": 2, "lo', lines[2]])
    log.write_text(damaged)
    with pytest.raises(UserError, match="is damaged: line 2"):
        RunLog(tmp_path, 3)
    assert log.read_text() == damaged


@pytest.mark.parametrize("change", ["one more", "other pixels"])
def test_a_run_does_not_go_on_with_other_data(tmp_path, change):
    images = folder_of_images(tmp_path / "images")
    run = pretrain(config(images, tmp_path, name="r", length="2it")).run
    kept = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != LOG}
    if change == "one more":
        Image.new("RGB", (16, 16)).save(images / "class0" / "new.png")
        says = r"images .*\[38, 10\].*\[39, 10\]"
    else:
        for path in (images / "class0").iterdir():
            Image.new("RGB", (16, 16), "red").save(path)
        says = "mean of the encoder"
    with pytest.raises(UserError, match=f"cannot go on.*{says}"):
        pretrain(read_run(run)[0], resume=run)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != LOG} == kept


@pytest.mark.parametrize("where", ["measuring", "the first step"])
def test_an_error_before_there_are_metrics_leaves_nothing_behind(images, tmp_path, monkeypatch, where):
    if where == "measuring":
        monkeypatch.setattr(run_room, "fit", lambda *_: 1 / 0)
    else:
        kill_at(monkeypatch, 0)
    with pytest.raises((ZeroDivisionError, Killed)):
        pretrain(config(images, tmp_path, name="r"))
    assert not (tmp_path / "r").exists()


def test_an_error_after_there_are_metrics_keeps_them(images, tmp_path, monkeypatch):
    run = killed_at(monkeypatch, 3, config(images, tmp_path, name="r", checkpoint_every="2it"))
    assert [step for step, _ in losses(run)] == [1, 2, 3]
    monkeypatch.setattr(run_room, "fit", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pretrain(read_run(run)[0], resume=run)
    assert newest_checkpoint(run).name == "step-000000002.safetensors"


def test_a_length_in_minutes_ends_by_the_clock_and_resumes_with_its_time(images, tmp_path):
    run = pretrain(config(images, tmp_path, name="clock", length="0.02min")).run
    rows = read_rows(run / "metrics.jsonl")
    assert rows[-1]["seconds"] >= 1.2
    lr = [row["lr"] for row in rows if row["kind"] == "train"]
    assert max(lr) > 10 * lr[-1]  # the schedule came to its end


@pytest.mark.parametrize("request_", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_request_saves_and_stops_at_a_step_and_the_rest_can_be_done_later(images, tmp_path, monkeypatch, request_):
    whole = pretrain(config(images, tmp_path, name="whole")).run
    if signal.getsignal(request_) == signal.SIG_IGN:  # by whoever started the tests, such as nohup
        signal.signal(request_, signal.SIG_DFL)
    before = signal.getsignal(request_)
    with monkeypatch.context() as patch:
        before_step(patch, 4, lambda: os.kill(os.getpid(), request_))
        outcome = pretrain(config(images, tmp_path, name="stopped"))
    assert outcome.stopped == request_.name
    assert signal.getsignal(request_) is before
    assert losses(outcome.run)[-1][0] == 5
    saved, _ = read_run(outcome.run)
    pretrain(saved, resume=outcome.run)
    assert losses(outcome.run) == losses(whole)
    assert same_weights(outcome.run, whole)


@pytest.fixture
def interruptible():
    """Ctrl-C as in a terminal; what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_second_request_to_stop_is_obeyed_at_once(images, tmp_path, monkeypatch):
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    before_step(monkeypatch, 4, twice)
    with pytest.raises(KeyboardInterrupt):
        pretrain(config(images, tmp_path, name="r"))


def test_a_diverging_run_stops_and_keeps_its_last_checkpoint(images, tmp_path):
    wild = config(images, tmp_path, name="wild", optimizer="sgd", lr=1e30, warmup="0%", checkpoint_every="1it")
    with pytest.raises(NonFiniteError, match="Nothing was updated"):
        pretrain(wild)
    assert newest_checkpoint(tmp_path / "wild")


@pytest.mark.parametrize("batch_norm", ["joint", "per_view"])
@pytest.mark.parametrize("views", [2, 3])
def test_batch_statistics_are_taken_as_asked(images, tmp_path, batch_norm, views):
    run = pretrain(config(images, tmp_path, length="2it", batch_norm=batch_norm, views=views)).run
    state = load_file(run / "encoder.safetensors")
    assert int(state["bn1.num_batches_tracked"]) == 2 * (1 if batch_norm == "joint" else views)


def test_the_configuration_is_saved_and_comes_back(images, tmp_path):
    asked = config(images, tmp_path, name="saved", views=3, crop_scale=(0.3, 0.9), length="1it")
    saved, recipe = read_run(pretrain(asked).run)
    resolved = {"size": 16, "stem": "small", "view_recipe": "natural", "precision": saved.precision}
    resolved |= {"lr": 2e-3, "batch_norm": "joint"}
    assert saved == dataclasses.replace(asked, **resolved)
    assert recipe[0].scale == (0.3, 0.9)
    assert sum(group.count for group in recipe) == 3


def test_without_a_length_the_epochs_that_fit_are_chosen_and_saved(images, tmp_path):
    run = pretrain(config(images, tmp_path, length="auto", batch=38, telemetry_every=0, log_every=1000)).run
    assert json.loads((run / "config.json").read_text())["config"]["length"] == "100ep"


def test_a_batch_larger_than_the_data_is_refused_with_a_batch_that_fits(images, tmp_path):
    with pytest.raises(UserError, match=r"64 .*38 training images.*--batch 38"):
        pretrain(config(images, tmp_path, batch=64))
    assert not any(tmp_path.glob("*/config.json"))


@pytest.mark.parametrize(
    ("data", "name"),
    [(".", "here"), ("..", "photos"), (".hidden", "hidden"), ("sub/", "sub"), ("cifar10", "cifar10"), ("/", "data")],
)
def test_a_run_is_named_after_its_data_and_never_hidden(tmp_path, monkeypatch, data, name):
    (tmp_path / "photos/here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "photos/here")
    assert new_run_directory(Config(data=data)) == Path("runs") / f"{name}-frossl"


def test_a_run_directory_is_never_overwritten(images, tmp_path):
    pretrain(config(images, tmp_path, name="mine", length="1it"))
    with pytest.raises(UserError, match="mine exists"):
        pretrain(config(images, tmp_path, name="mine", length="1it"))


def test_one_command_starts_a_run_goes_on_with_it_and_can_be_given_again(images, tmp_path, monkeypatch):
    whole = pretrain(config(images, tmp_path, name="whole")).run
    asked = config(images, tmp_path, name="big", checkpoint_every="2it")
    (tmp_path / "big").mkdir()  # a run that was killed before it wrote its configuration
    (tmp_path / "big" / LOG).write_text("Data\n")
    (tmp_path / "big" / ".config.json.partial").touch()  # killed while it wrote it
    with monkeypatch.context() as patch:
        kill_at(patch, 4)
        with pytest.raises(Killed):
            pretrain(asked, resume="auto")
    for _ in range(2):
        assert pretrain(asked, resume="auto").run == tmp_path / "big"
        assert losses(tmp_path / "big") == losses(whole)
        assert same_weights(tmp_path / "big", whole)
    with pytest.raises(UserError, match="--name"):
        pretrain(config(images, tmp_path), resume="auto")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match="mine exists"):
        pretrain(config(images, tmp_path, name="mine"), resume="auto")


def test_two_processes_do_not_train_in_one_directory(images, tmp_path, monkeypatch):
    run = pretrain(config(images, tmp_path, name="r", length="1it")).run
    monkeypatch.setattr("frossl.runs.directory.PATIENCE", 0.1)
    with alone_in(run), pytest.raises(UserError, match="another process trains"):
        pretrain(read_run(run)[0], resume=run)
    pretrain(read_run(run)[0], resume=run)


def test_what_is_said_is_kept_in_the_run_whether_anybody_sees_it(images, tmp_path):
    shown = StringIO()
    run = pretrain(config(images, tmp_path, name="r"), console=Console(file=shown, width=200)).run
    quiet = pretrain(config(images, tmp_path, name="q")).run
    told = shown.getvalue().split()
    assert "Saved" in told
    assert (run / LOG).read_text().split() == told
    assert (quiet / LOG).read_text().count("Saved") == 1


def test_a_place_that_cannot_be_written_to_is_named(images, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(UserError, match=f"run directory {tmp_path / 'file'}"):
        pretrain(config(images, tmp_path / "file" / "runs"))


def test_many_ranks_are_refused_rather_than_trained_apart(images, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun's other variables"):
        pretrain(config(images, tmp_path))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "mobilenetv3_small_050"])
@pytest.mark.usefixtures("reports")
def test_other_timm_encoders_train(images, tmp_path, backbone):
    changes = {"backbone": backbone, "backbone_options": "{}", "length": "2it", "size": 32}
    assert len(losses(pretrain(config(images, tmp_path, **changes)).run)) == 2


def test_groups_of_views_come_in_order_of_size(images, tmp_path, monkeypatch):
    recipes: Registry[Recipe] = Registry("view recipe")
    recipes.add("small-first", (View(count=1, size=8), View(count=1, size=16)))
    for room in ("frossl.runs.config", "frossl.train.plan"):
        monkeypatch.setattr(f"{room}.VIEWS", recipes)
    with pytest.raises(UserError, match=r"'small-first'.*order of size"):
        pretrain(config(images, tmp_path, view_recipe="small-first"))


def relabel(monkeypatch, train=lambda labels: labels, test=lambda labels: labels) -> None:
    """Changes the labels of all data that are opened."""
    opened = run_data.open_data

    def changed(*source, **options):
        data = opened(*source, **options)
        return dataclasses.replace(
            data,
            train=Split(data.train.images, train(data.train.labels)),
            test=Split(data.test.images, test(data.test.labels)),
        )

    monkeypatch.setattr(run_data, "open_data", changed)


@pytest.mark.usefixtures("reports")
def test_labels_that_held_out_images_lack_are_not_used(images, tmp_path, monkeypatch):
    relabel(monkeypatch, test=lambda labels: torch.full_like(labels, -1))
    said = StringIO()
    console = Console(file=said, width=200)
    outcome = pretrain(config(images, tmp_path, length="2it", evaluate=True), console=console)
    assert "labels are not" in said.getvalue()
    assert "no accuracy" in said.getvalue()
    assert not any({"probe", "probe_on_views", "knn"} & row.keys() for row in read_rows(outcome.run / "metrics.jsonl"))
    assert outcome.evaluation is not None
    assert outcome.evaluation.arms.keys() == {"pretrained", "untrained"}
    assert not any("knn" in values for values in outcome.evaluation.arms.values())


SUPERVISED = {"method": "supervised", "objective": Supervised.Config()}


def test_supervised_training_needs_labels(images, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"--method supervised .*labels"):
        pretrain(config(images, tmp_path, labels=False, **SUPERVISED))
    relabel(monkeypatch, train=lambda labels: torch.full_like(labels, -1))
    with pytest.raises(UserError, match=r"--method supervised .*labels"):
        pretrain(config(images, tmp_path, **SUPERVISED))
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("reports")
def test_supervised_training_sees_labelled_images_only(images, tmp_path, monkeypatch):
    relabel(monkeypatch, train=lambda labels: labels.where(torch.arange(len(labels)) % 2 == 0, -1))
    batches, seen = loop.training_batches, []

    def watched(*what, **how):
        for batch in batches(*what, **how):
            seen.append(batch.labels_N)
            yield batch

    monkeypatch.setattr(loop, "training_batches", watched)
    run = pretrain(config(images, tmp_path, length="3ep", **SUPERVISED)).run
    assert json.loads((run / "config.json").read_text())["images"] == [19, 10]
    assert losses(run)[-1][0] == 3 * (19 // 8)
    assert torch.cat(seen).min() == 0
    pretrain(read_run(run)[0], resume=run)


@pytest.mark.usefixtures("reports")
def test_the_method_random_trains_nothing_and_settles_the_batch_norms(images, tmp_path):
    asked = config(images, tmp_path, name="r", method="random", objective=Random.Config(), precision="32")
    run = pretrain(asked).run
    assert read_rows(run / "metrics.jsonl") == []
    state, spec = read_encoder(run / "encoder.safetensors")
    untrained = untrained_encoder(spec, seed=0)
    assert torch.equal(state["conv1.weight"], untrained.state_dict()["conv1.weight"])
    assert state["bn1.running_mean"].any()
    Extractor().settle_batch_norm(untrained, run_data.load_run_data(asked).train, spec)
    wanted = untrained.state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    pretrain(read_run(run)[0], resume=run)
    again, _ = read_encoder(run / "encoder.safetensors")
    assert all(torch.equal(state[name], again[name]) for name in state)


class Small(torch.nn.Module):
    """An encoder that is not timm's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 12, 5, 2)
        self.norm = torch.nn.BatchNorm2d(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).relu().mean((2, 3))


@pytest.mark.usefixtures("reports")
def test_any_module_can_be_the_encoder(images, tmp_path):
    torch.manual_seed(3)
    mine = Small()
    start = mine.conv.weight.detach().clone()
    outcome = pretrain(config(images, tmp_path, name="own", evaluate=True, length="2ep"), backbone=mine)
    assert outcome.evaluation is not None
    assert outcome.evaluation.arms.keys() == {"pretrained", "untrained", "raw pixels", "largest class"}
    assert not torch.equal(mine.conv.weight, start)
    saved, _ = read_run(outcome.run)
    with pytest.raises(UserError, match="own, Small"):
        evaluate_run(outcome.run)
    again = evaluate_run(outcome.run, backbone=Small(), protocols=("knn",))
    assert again.arms["pretrained"]["knn"] == outcome.evaluation.arms["pretrained"]["knn"]
    longer = pretrain(dataclasses.replace(saved, evaluate=False), backbone=Small(), resume=outcome.run)
    assert losses(longer.run) == losses(outcome.run)


def test_an_encoder_that_gives_maps_is_refused(images, tmp_path):
    with pytest.raises(UserError, match="one vector per image"):
        pretrain(config(images, tmp_path), backbone=torch.nn.Conv2d(3, 8, 3))


def test_a_run_saves_what_was_resolved_and_takes_it_from_another_machine(images, tmp_path, monkeypatch):
    """On this one, precision and size would be decided otherwise; so must the flags that say what was saved."""
    changes = {"precision": "auto", "size": None, "stem": "auto", "view_recipe": "auto", "views": None, "batch": None}
    run = pretrain(config(images, tmp_path, name="r", length="3it", **changes)).run
    saved = read_run(run)[0]
    monkeypatch.setattr("frossl.train.resources.cpu_has_bf16", lambda: saved.precision != "bf16")
    resolved = {"size": 16, "stem": "small", "view_recipe": "natural", "views": 2, "batch": 8}
    assert {name: getattr(saved, name) for name in resolved} == resolved
    assert saved.precision in ("32", "bf16")
    for given in (saved, config(images, tmp_path, name="r", length="3it", **changes)):
        assert pretrain(given, resume=run).run == run
    with pytest.raises(UserError, match="--size, --lr would"):
        pretrain(dataclasses.replace(saved, lr=1.0, size=20), resume=run)


def test_a_resumed_run_says_what_is_another_machine_with_or_without_an_accelerator():
    shown = StringIO()
    then = run_room.environment()
    run_room.tell_differences(Console(file=shown, width=300), then)
    assert shown.getvalue() == ""
    run_room.tell_differences(Console(file=shown, width=300), then | {"threads": "99", "device": "NVIDIA H200"})
    assert "threads was 99, is 1" in shown.getvalue()
    assert "device was NVIDIA H200, is None" in shown.getvalue()


def test_the_objective_of_a_resumed_run_stays(images, tmp_path):
    run = pretrain(config(images, tmp_path, name="r", length="2it")).run
    saved = read_run(run)[0]
    other = dataclasses.replace(saved.objective, invariance_weight=3.0)
    with pytest.raises(UserError, match="--invariance-weight would"):
        pretrain(dataclasses.replace(saved, objective=other), resume=run)


def test_a_method_keeps_its_double_precision_state(images, tmp_path):
    """The covariance of CorInfoMax is float64 whatever the precision of the encoder."""
    own = CorInfoMax.Config(projector="16-bn-relu-16")
    run = pretrain(config(images, tmp_path, method="corinfomax", objective=own, precision="32", length="2it")).run
    learner = load_checkpoint(newest_checkpoint(run))["learner"]
    assert learner["method.covariance"].dtype == learner["method.mean"].dtype == torch.float64
    assert learner["backbone.conv1.weight"].dtype == torch.float32


def test_the_stem_is_chosen_by_the_views_and_the_plan_says_at_which_size_images_are_evaluated(tmp_path):
    for i in range(16):
        path = tmp_path / "large" / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((64, 64), 60).save(path)
    said = StringIO()
    c = config(tmp_path / "large", tmp_path, size=32, length="1it", name="r")
    run = pretrain(c, console=Console(file=said, width=200)).run
    spec = read_encoder(run / "encoder.safetensors")[1]
    assert (spec.stem, spec.size) == ("small", 64)
    assert "evaluated at 64x64" in said.getvalue()


def test_a_configuration_takes_the_options_of_its_method():
    assert Config(data="x", method="byol").objective == BYOL.Config()
    with pytest.raises(UserError, match=r"frossl\.Config.*'byol'"):
        Config(data="x", method="byol", objective=METHODS["frossl"].Config())


@pytest.mark.parametrize(("name", "value"), [("device", "gpu"), ("precision", "16")])
def test_a_device_or_precision_that_does_not_exist_is_refused_at_once(name, value):
    with pytest.raises(UserError, match=f"{name} .*'{value}'"):
        Config(data="x", **{name: value})


def test_paths_may_be_words():
    config = Config(data="x", out="runs", data_dir="data")
    assert (config.out, config.data_dir) == (Path("runs"), Path("data"))


def test_a_run_of_a_recipe_is_read_without_importing_recipes():
    program = "from frossl.runs.config import Config; Config(data='x', view_recipe='cifar-cpu')"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(("method", "precision"), [("mmcr", "auto"), ("frossl", "64")])
def test_what_needs_float64_does_not_run_on_mps(monkeypatch, method, precision):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    wants = {"data": "x", "method": method, "precision": precision}
    assert device_of(Config(data="x")).type == "mps"
    assert device_of(Config(**wants)).type == "cpu"
    with pytest.raises(UserError, match="mps has no float64"):
        device_of(Config(**wants, device="mps"))


def test_the_monitor_looks_geometrically_and_with_a_ridge_probe_where_that_is_asked_for(images, tmp_path):
    plain, asked = config(images, tmp_path, name="a"), config(images, tmp_path, name="b", monitor_every="geometric")
    runs = [pretrain(c).run for c in (plain, dataclasses.replace(asked, monitor_ridge=True))]
    before, after = ([row for row in read_rows(r / "metrics.jsonl") if row["kind"] == "monitor"] for r in runs)
    assert all("ridge" not in row for row in before)
    assert all(0 <= row["ridge"] <= 1 and row["look_seconds"] > 0 for row in after)
    steps = after[-1]["step"]
    assert [row["step"] for row in after] == sorted({math.ceil(steps * share - 1e-9) for share in GEOMETRIC_FRACTIONS})
    assert same_weights(*runs)
    with pytest.raises(UserError, match="geometrical"):
        config(images, tmp_path, monitor_every="geometrical")
