"""The loop: same seed same run, resumed run same run, and what stops it."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from frossl.core.types import UserError
from frossl.methods.frossl import FroSSL
from frossl.train.config import Config
from frossl.train.log import read_rows
from frossl.train.loop import NonFiniteError, check_finite
from frossl.train.run import evaluate_run, pretrain, read_run

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
            objective=FroSSL.Config(projector="16-bn-relu-16"),
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
        ),
        **changes,
    )


def losses(run: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]


def same_weights(a: Path, b: Path) -> bool:
    one, two = load_file(a / "encoder.safetensors"), load_file(b / "encoder.safetensors")
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return folder_of_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def mixed_images(tmp_path_factory) -> Path:
    return folder_of_images(tmp_path_factory.mktemp("mixed"), sizes=((16, 16), (20, 14), (33, 40)))


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
        "metrics.jsonl",
        "checkpoints",
        "encoder.safetensors",
        "tensorboard",
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
    changes = {"name": "killed", "optimizer": optimizer, "checkpoint_every": "7it"}
    program = (
        "import os, signal, sys\n"
        "sys.path[:0] = [sys.argv[3]]\n"
        "from pathlib import Path\n"
        "import torch; torch.set_num_threads(1)\n"
        "import frossl.train.loop as loop\n"
        "from test_train_loop import config\n"
        "from frossl.train.run import pretrain\n"
        "check = loop.check_finite\n"
        "def kill_at_nine(step, *rest, **more):\n"
        "    if step == 9: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    check(step, *rest, **more)\n"
        "loop.check_finite = kill_at_nine\n"
        f"pretrain(config(Path(sys.argv[1]), Path(sys.argv[2]), **{changes!r}))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(images), str(tmp_path), str(Path(__file__).parent)])
    assert ended.returncode == -signal.SIGKILL
    killed = tmp_path / "killed"
    assert [p.name for p in (killed / "checkpoints").iterdir()] == ["step-000000007.safetensors"]
    saved, _ = read_run(killed)
    pretrain(saved, resume=killed)
    assert losses(killed) == losses(whole)
    assert same_weights(killed, whole)


def test_a_length_in_minutes_ends_by_the_clock_and_resumes_with_its_time(images, tmp_path):
    run = pretrain(config(images, tmp_path, name="clock", length="0.02min")).run
    rows = read_rows(run / "metrics.jsonl")
    assert rows[-1]["seconds"] >= 1.2
    lr = [row["lr"] for row in rows if row["kind"] == "train"]
    assert max(lr) > 10 * lr[-1]  # the schedule came to its end


def test_an_interrupt_saves_and_stops_at_a_step_and_the_rest_can_be_done_later(images, tmp_path, monkeypatch):
    import frossl.train.loop as loop

    whole = pretrain(config(images, tmp_path, name="whole")).run
    check = loop.check_finite

    def interrupt_at_four(step, *rest, **more):
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        check(step, *rest, **more)

    monkeypatch.setattr(loop, "check_finite", interrupt_at_four)
    before = signal.getsignal(signal.SIGINT)
    outcome = pretrain(config(images, tmp_path, name="stopped"))
    assert outcome.stopped == "SIGINT"
    assert signal.getsignal(signal.SIGINT) is before
    assert losses(outcome.run)[-1][0] == 5
    monkeypatch.setattr(loop, "check_finite", check)
    saved, _ = read_run(outcome.run)
    pretrain(saved, resume=outcome.run)
    assert losses(outcome.run) == losses(whole)
    assert same_weights(outcome.run, whole)


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_step_and_term():
    terms = {"entropy": torch.tensor(-1.0), "invariance": torch.tensor(float("nan"))}
    with pytest.raises(NonFiniteError, match=r"step 812: the invariance term"):
        check_finite(812, torch.tensor(float("nan")), terms, torch.tensor(1.0))
    good = {"entropy": torch.tensor(-1.0)}
    with pytest.raises(NonFiniteError, match=r"step 3: the gradient"):
        check_finite(3, torch.tensor(-1.0), good, torch.tensor(float("inf")))
    check_finite(3, torch.tensor(-1.0), good, torch.tensor(2.0))


def test_a_diverging_run_stops_and_keeps_its_last_checkpoint(images, tmp_path):
    wild = config(images, tmp_path, name="wild", optimizer="sgd", lr=1e30, warmup="0%", checkpoint_every="1it")
    with pytest.raises(NonFiniteError, match="Nothing was updated"):
        pretrain(wild)
    assert list((tmp_path / "wild" / "checkpoints").iterdir())


@pytest.mark.parametrize("batch_norm", ["joint", "per_view"])
@pytest.mark.parametrize("views", [2, 3])
def test_batch_statistics_are_taken_as_asked(images, tmp_path, batch_norm, views):
    run = pretrain(config(images, tmp_path, length="2it", batch_norm=batch_norm, views=views)).run
    state = load_file(run / "encoder.safetensors")
    assert int(state["bn1.num_batches_tracked"]) == 2 * (1 if batch_norm == "joint" else views)


def test_the_configuration_is_saved_and_comes_back(images, tmp_path):
    asked = config(images, tmp_path, name="saved", views=3, crop_scale=(0.3, 0.9), length="1it")
    saved, recipe = read_run(pretrain(asked).run)
    assert saved == asked
    assert recipe[0].scale == (0.3, 0.9)
    assert sum(group.count for group in recipe) == 3


def test_without_a_length_the_epochs_that_fit_are_chosen_and_saved(images, tmp_path):
    run = pretrain(config(images, tmp_path, length="auto", log_every=1000)).run
    assert json.loads((run / "config.json").read_text())["config"]["length"] == "100ep"


def test_a_batch_larger_than_the_data_is_refused_with_a_batch_that_fits(images, tmp_path):
    with pytest.raises(UserError, match=r"batch of 64 does not fit 38 training images; give --batch 9 or less"):
        pretrain(config(images, tmp_path, batch=64))
    assert not any(tmp_path.glob("*/config.json"))


def test_a_run_directory_is_never_overwritten(images, tmp_path):
    pretrain(config(images, tmp_path, name="mine", length="1it"))
    with pytest.raises(UserError, match="mine exists"):
        pretrain(config(images, tmp_path, name="mine", length="1it"))


def test_a_place_that_cannot_be_written_to_is_named(images, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(UserError, match="cannot make the run directory"):
        pretrain(config(images, tmp_path / "file" / "runs"))


def test_many_ranks_are_refused_rather_than_trained_apart(images, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process"):
        pretrain(config(images, tmp_path))


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_other_timm_encoders_train(images, tmp_path, backbone):
    changes = {"backbone": backbone, "backbone_options": "{}", "length": "2it", "size": 32}
    assert len(losses(pretrain(config(images, tmp_path, **changes)).run)) == 2


class Small(torch.nn.Module):
    """An encoder that is not timm's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 12, 5, 2)
        self.norm = torch.nn.BatchNorm2d(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).relu().mean((2, 3))


def test_any_module_can_be_the_encoder(images, tmp_path):
    torch.manual_seed(3)
    mine = Small()
    start = mine.conv.weight.detach().clone()
    outcome = pretrain(config(images, tmp_path, name="own", evaluate=True, length="2ep"), backbone=mine)
    assert outcome.evaluation is not None
    assert outcome.evaluation.arms.keys() == {"pretrained", "untrained", "raw pixels"}
    assert not torch.equal(mine.conv.weight, start)
    saved, _ = read_run(outcome.run)
    with pytest.raises(UserError, match="a module of your own, Small: give one like it"):
        evaluate_run(outcome.run)
    again = evaluate_run(outcome.run, backbone=Small(), protocols=("knn",))
    assert again.arms["pretrained"]["knn"] == outcome.evaluation.arms["pretrained"]["knn"]
    longer = pretrain(dataclasses.replace(saved, evaluate=False), backbone=Small(), resume=outcome.run)
    assert losses(longer.run) == losses(outcome.run)


def test_an_encoder_that_gives_maps_is_refused(images, tmp_path):
    with pytest.raises(UserError, match="one vector per image"):
        pretrain(config(images, tmp_path), backbone=torch.nn.Conv2d(3, 8, 3))
