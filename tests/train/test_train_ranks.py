"""Several ranks train the model that one process trains, and none of them outlives another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch
from rich.console import Console
from test_train_guard import narrow
from test_train_loop import config, folder_of_images, losses, same_weights

from frossl import cli
from frossl.core import distributed as dist
from frossl.core.types import UserError
from frossl.data import open_data
from frossl.methods import METHODS
from frossl.runs.checkpoint import load_checkpoint, newest_checkpoint
from frossl.runs.directory import read_run
from frossl.runs.log import read_rows
from frossl.train.plan import make_plan
from frossl.train.pretrain import pretrain
from frossl.train.step import Stepper
from rank_programs import finish, free_port, outlived, start_ranks

METHODS_HERE = ["frossl", "dino", "mocov2plus", "corinfomax", "supervised"]
STEADY = {"optimizer": "sgd", "lr": 0.02, "batch": 9, "precision": "64", "length": "2ep"}
RUNS: dict[str, dict] = {
    **{method: {"method": method, "objective": narrow(method), **STEADY} for method in METHODS_HERE},
    "parts": {
        **STEADY,
        "micro_batch": 2,
        "backbone": "vit_tiny_patch16_224",
        "backbone_options": '{"embed_dim": 24, "depth": 1, "num_heads": 2}',
        "size": 16,
    },
    "frozen": {
        "method": "swav",
        "objective": METHODS["swav"].Config(projector="16-bn-relu-8", prototypes=12),
        **STEADY,
    },
    "evaluated": {**STEADY, "evaluate": True},
    "float32": {**STEADY, "precision": "32", "length": "24it", "batch": 19, "lr": 1e-4},
    "again": {"objective": narrow("frossl"), **STEADY},
}


def train(images: Path, out: Path, name: str) -> None:
    """One of the runs, which ends with a report if it is evaluated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("frossl.evals.linear.PENALTIES", (1e-1, 1e-3))  # fewer fits, for time
        if not RUNS[name].get("evaluate"):
            patch.setattr("frossl.train.pretrain.write_report", lambda runs, output, **_: output)
        pretrain(config(images, out, name=name, **RUNS[name]), console=Console(width=100))


def train_all(images: Path, out: Path) -> None:
    for name in RUNS:
        train(images, out, name)
    pretrain(read_run(out / "resumed")[0], resume=out / "resumed")
    print("WORLD", torch.distributed.get_world_size())


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return folder_of_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def runs(images, tmp_path_factory) -> tuple[Path, Path, list[str]]:
    """Directories of runs by one process and by two ranks, and what the ranks said."""
    alone, together = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    for name in RUNS:
        train(images, alone, name)
    interrupted(images, together, "resumed", 5)
    words = tmp_path_factory.mktemp("words") / "said"
    said = finish(start_ranks(lambda rank: train_all(images, together), words), words)
    return alone, together, said


def interrupted(images: Path, out: Path, name: str, step: int) -> None:
    """A run of one process that was killed after it saved at ``step``."""
    from test_train_loop import killed_at

    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, step, config(images, out, name=name, **RUNS["frossl"] | {"checkpoint_every": f"{step}it"}))


def terms(run: Path) -> list[tuple[float, float]]:
    """Entropy and invariance of every step."""
    rows = read_rows(run / "metrics.jsonl")
    return [(row["entropy"], row["invariance"]) for row in rows if row["kind"] == "train"]


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_take_the_steps_of_one(runs, name):
    alone, together, _ = runs
    wanted, got = losses(alone / name), losses(together / name)
    assert [step for step, _ in got] == [step for step, _ in wanted]
    if name == "float32":  # the loss is a small difference of large terms, whose rounding is that of their sizes
        assert len(got) == 24
        for one, other in zip(terms(alone / name), terms(together / name), strict=True):
            assert sum(other) == pytest.approx(sum(one), abs=1e-6 * sum(map(abs, one)))
        return
    assert [loss for _, loss in got] == pytest.approx([loss for _, loss in wanted], rel=1e-9)
    a, b = (load_checkpoint(newest_checkpoint(out / name)) for out in (alone, together))
    for key, value in a["learner"].items():
        torch.testing.assert_close(b["learner"][key], value, rtol=1e-7, atol=1e-9, msg=key)
    for key, value in a["probe"][0].items():
        torch.testing.assert_close(b["probe"][0][key], value, rtol=1e-4, atol=1e-5, msg=key)


def test_what_the_monitor_and_the_evaluation_find_is_the_same(runs):
    alone, together, _ = runs
    a, b = (
        [row for row in read_rows(out / "evaluated" / "metrics.jsonl") if row["kind"] == "monitor"] for out in runs[:2]
    )
    assert [row["step"] for row in a] == [row["step"] for row in b]
    for one, other in zip(a, b, strict=True):
        assert one["knn"] == other["knn"]
        assert one["effective_rank"] == pytest.approx(other["effective_rank"], rel=1e-5)
    arms = [json.loads((out / "evaluated" / "evaluation.json").read_text()) for out in (alone, together)]
    (one,), (other,) = (list(found.values()) for found in arms)
    assert one["arms"].keys() == other["arms"].keys()
    for arm, values in one["arms"].items():
        assert other["arms"][arm] == pytest.approx(values, rel=1e-4, abs=1e-6)
    assert (together / "evaluated" / "report.html").exists()


@pytest.mark.parametrize("name", ["frossl", "parts"])
def test_a_spectrum_of_training_views_is_of_those_of_all_ranks(runs, name):
    alone, together = (
        [r for r in read_rows(out / name / "metrics.jsonl") if r["kind"] == "spectrum" and r["on"] == "views"]
        for out in runs[:2]
    )
    assert [(r["step"], r["where"], r["samples"]) for r in together] == [
        (r["step"], r["where"], r["samples"]) for r in alone
    ]
    assert {r["where"] for r in alone} == {"backbone", "projector"}
    for one, other in zip(alone, together, strict=True):
        for figure in ("variance", "effective_rank", "rankme", "mean_to_spread"):
            assert other[figure] == pytest.approx(one[figure], rel=1e-5)


def test_there_is_one_writer_and_one_directory_per_run(runs):
    _, together, said = runs
    assert {p.name for p in together.iterdir()} == {*RUNS, "resumed"}
    assert all("WORLD 2" in text for text in said)
    assert said[0].count("Saved") == len(RUNS)
    assert "Saved" not in said[1]
    boards = list((together / "frossl" / "tensorboard").iterdir())
    assert len(boards) == 1
    assert json.loads((together / "frossl" / "config.json").read_text())["environment"]["ranks"] == "2"


def test_a_run_goes_on_with_another_number_of_ranks_and_back(images, runs, tmp_path):
    """One process to step 5, two ranks from there; and two ranks' last checkpoint is read by one."""
    alone, together, _ = runs
    got, wanted = losses(together / "resumed"), losses(alone / "frossl")
    assert [step for step, _ in got] == [step for step, _ in wanted]
    assert [loss for _, loss in got] == pytest.approx([loss for _, loss in wanted], rel=1e-9)
    pretrain(read_run(together / "resumed")[0], resume=together / "resumed")
    assert losses(together / "resumed") == got


def train_slowly(images: Path, out: Path, rank: int) -> None:
    take = Stepper.__call__

    def slowly(self, batch, step, *rest):
        if step == 4 and (out / "r" / "metrics.jsonl").exists():
            (out / f"ready{rank}").touch()
            time.sleep(3600 if rank == 1 else 0)
        return take(self, batch, step, *rest)

    Stepper.__call__ = slowly
    pretrain(config(images, out, name="r", checkpoint_every="2it", rank_timeout=15.0), console=Console(width=200))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_when_a_rank_is_killed_or_stopped_the_other_ends_and_the_run_can_go_on(images, tmp_path, how):
    ranks = start_ranks(lambda rank: train_slowly(images, tmp_path, rank), tmp_path / "said")
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready1").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    started = time.monotonic()
    os.kill(ranks[1], how)
    code, said = outlived(ranks, 0, tmp_path / "said")
    assert time.monotonic() - started < 60
    assert code != 0
    assert "rank 0 of 2" in said
    assert load_checkpoint(newest_checkpoint(tmp_path / "r"))["step"] == 4
    pretrain(read_run(tmp_path / "r")[0], resume=tmp_path / "r")
    assert [step for step, _ in losses(tmp_path / "r")] == list(range(1, 13))


def fail(where: str, rank: int) -> None:
    """The command line, as a rank whose other one dies during a backward pass or between steps, or fails itself."""
    torch.distributed.init_process_group("gloo")
    dist.set_timeout(30.0)
    dist.largest(0.0)

    def fails(*_, **__):
        if where == "own":
            raise RuntimeError("of one's own")
        network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
        loss = network(torch.ones(3, 2)).sum()
        if rank == 1:
            os._exit(9)
        loss.backward() if where == "backward" else dist.largest(0.0)

    cli.COMMANDS["replay"] = types.SimpleNamespace(run=fails)
    cli.main(["replay", "run"])


@pytest.mark.parametrize(
    ("where", "code", "says"),
    [
        ("backward", 4, "rank 0 of 2 got"),
        ("between", 4, "rank 0 of 2 got"),
        ("own", 1, "RuntimeError: of one's own"),
    ],
)
def test_the_command_line_says_plainly_that_a_rank_is_gone_and_shows_where_all_else_failed(tmp_path, where, code, says):
    ranks = start_ranks(lambda rank: fail(where, rank), tmp_path / "said")
    got, said = outlived(ranks, 0, tmp_path / "said")
    assert got == code, said
    assert says in " ".join(said.split())
    assert ("Traceback" in said) == (code == 1)


def test_the_command_line_under_torchrun_trains_together(images, tmp_path):
    """As in the documentation, agent and all, from the images to the report; the evaluation is that of ``runs``."""
    options = "--no-evaluate --batch 8 --length 2ep --projector 16-bn-relu-16 --workers 0 --device cpu --precision 32"
    ended = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nproc-per-node",
                "2",
                "--master-port",
                str(free_port()),
            ),
            *("-m", "frossl.cli", "pretrain", str(images), "--out", str(tmp_path), "--name", "r", *options.split()),
            *("--backbone-options", '{"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}'),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"r"}
    assert ended.stdout.count("Saved") == ended.stdout.count("Report") == 1
    assert (tmp_path / "r" / "report.html").exists()
    assert json.loads((tmp_path / "r" / "config.json").read_text())["environment"]["ranks"] == "2"


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"WORLD_SIZE": "2"}, "torchrun's other variables"),
        ({"WORLD_SIZE": "4", "RANK": "1"}, "WORLD_SIZE is 4"),
    ],
)
def test_ranks_are_refused_rather_than_trained_apart(images, tmp_path, monkeypatch, environment, says):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=says):
        pretrain(config(images, tmp_path))
    assert not any(tmp_path.iterdir())


def test_a_fabric_of_another_size_than_the_launcher_is_refused(images, tmp_path, monkeypatch):
    monkeypatch.setattr("frossl.train.ranks.launched", lambda: (1, 1))
    monkeypatch.setattr("frossl.train.ranks.world_size", lambda: 2)
    with pytest.raises(UserError, match="train alone"):
        pretrain(config(images, tmp_path))
    assert not any(tmp_path.iterdir())


def test_a_batch_smaller_than_the_ranks_is_refused(images, tmp_path, monkeypatch):
    monkeypatch.setattr("frossl.train.plan.world_size", lambda: 9)
    with pytest.raises(UserError, match="of 9 ranks"):
        pretrain(config(images, tmp_path))


@pytest.mark.parametrize(
    ("ranks", "batch", "micro", "wanted"),
    [(1, 8, None, 1), (1, 8, 3, 3), (2, 5, 1, 2), (2, 9, 5, 1), (2, 11, 5, 2), (3, 7, 100, 1), (3, 8, 1, 2)],
)
def test_parts_are_as_many_on_every_rank(images, tmp_path, monkeypatch, ranks, batch, micro, wanted):
    monkeypatch.setattr("frossl.train.plan.world_size", lambda: ranks)
    plan = make_plan(config(images, tmp_path, batch=batch, micro_batch=micro), open_data(str(images)))
    for shard in torch.arange(batch).tensor_split(ranks):
        parts = [part for part in shard.tensor_split(plan.chunks) if len(part)]
        assert len(parts) == wanted
        assert micro is None or max(map(len, parts)) <= max(micro, 1 + (batch % ranks > 0))


def test_two_ranks_twice_are_bit_for_bit_the_same(runs):
    _, together, _ = runs
    assert losses(together / "again") == losses(together / "frossl")
    assert same_weights(together / "again", together / "frossl")
