"""Several ranks train the model that one process trains, and none of them outlives another."""

from __future__ import annotations

import importlib
import itertools
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
from frossl.commands import replay
from frossl.core import distributed as dist
from frossl.core.launch import Launch
from frossl.core.types import UserError
from frossl.data import open_data, scan
from frossl.methods import METHODS
from frossl.runs.checkpoint import load_checkpoint, newest_checkpoint
from frossl.runs.directory import read_run
from frossl.runs.log import read_rows
from frossl.train import loop
from frossl.train import ranks as ranks_room
from frossl.train.evaluate import evaluate_run
from frossl.train.plan import make_plan
from frossl.train.pretrain import pretrain
from frossl.train.ranks import joined, load_on_all_ranks
from frossl.train.resources import _own_gpu, workers_for
from frossl.train.step import Stepper
from rank_programs import ended, finish, free_port, outlived, start_ranks

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
        patch.setattr(sys.modules["frossl.evals.linear"], "PENALTIES", (1e-1, 1e-3))  # fewer fits, for time
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


def train_slowly(images: Path, out: Path, stall: float, rank: int, timeout: float = 5.0) -> None:
    """Rank 1 stalls within a step for longer than the heartbeat may be silent, and some steps later for good."""
    take = Stepper.__call__

    def slowly(self, batch, step, *rest):
        if (out / "r" / "metrics.jsonl").exists() and step in (2, 4):
            (out / f"ready{rank}").touch() if step == 4 else None
            time.sleep({2: stall, 4: 3600}[step] if rank == 1 else 0)
        return take(self, batch, step, *rest)

    Stepper.__call__ = slowly
    asked = config(images, out, name="r", checkpoint_every="2it", rank_timeout=timeout)
    pretrain(asked, console=Console(width=200))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_slow_rank_is_waited_for_and_when_it_is_killed_or_stopped_the_other_ends_and_the_run_can_go_on(
    images, tmp_path, how
):
    stall = 8.0 if how == signal.SIGSTOP else 0.0
    ranks = start_ranks(lambda rank: train_slowly(images, tmp_path, stall, rank), tmp_path / "said")
    deadline = time.monotonic() + 120
    while not (tmp_path / "ready1").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    started = time.monotonic()
    os.kill(ranks[1], how)
    code, said = outlived(ranks, 0, tmp_path / "said")
    assert time.monotonic() - started < 30
    assert code == dist.LOST if how == signal.SIGSTOP else code
    assert "rank 0 of 2" in said
    assert load_checkpoint(newest_checkpoint(tmp_path / "r"))["step"] == 4
    pretrain(read_run(tmp_path / "r")[0], resume=tmp_path / "r")
    assert [step for step, _ in losses(tmp_path / "r")] == list(range(1, 13))


def see_another_disk(images: Path, out: Path, rank: int) -> None:
    """The second rank does not see yet that the run has begun."""
    if rank == 1:
        sys.modules["frossl.runs.directory"].begun_run = lambda config: None
    with pytest.raises(UserError if rank == 1 else dist.RankError, match="the first rank with" if rank == 1 else ""):
        pretrain(config(images, out, name="r", length="1it"), resume="auto")


def test_ranks_that_would_not_go_on_with_the_same_run_end(images, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("frossl.train.pretrain.write_report", lambda runs, output, **_: output)
        pretrain(config(images, tmp_path, name="r", length="1it"))
    said = tmp_path / "said"
    finish(start_ranks(lambda rank: see_another_disk(images, tmp_path, rank), said), said)


def wait_for_others(images: Path, out: Path, rank: int) -> None:
    ranks_room.START_UP = 1.0
    replay.run = lambda *_: ranks_room.start(config(images, out))
    time.sleep(300 if rank == 1 else 0)
    cli.main(["replay", "run"])


def test_ranks_that_do_not_come_are_waited_for_up_to_a_limit(images, tmp_path):
    ranks = start_ranks(lambda rank: wait_for_others(images, tmp_path, rank), tmp_path / "said")
    code, said = outlived(ranks, 0, tmp_path / "said")
    assert code == dist.LOST, said
    assert "rank 0 of 2 did not find all others within 1 s" in " ".join(said.split())


def under_slurm(images: Path, out: Path, rank: int) -> int:
    """A task of srun on a machine of its own, as the command line; the scheduler warns all tasks before step 5."""
    port = (out / "port").read_text()
    os.environ |= {"SLURM_NTASKS": "2", "SLURM_PROCID": str(rank), "SLURM_LOCALID": "0", "SLURM_NODEID": str(rank)}
    os.environ |= {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
    os.environ |= {"SLURM_STEP_NODELIST": "localhost", "MASTER_PORT": port}
    take = Stepper.__call__

    def warned(self, batch, step, *rest):
        if (out / "runs" / "r" / "metrics.jsonl").exists() and step == 5 and not (out / "again").exists():
            os.kill(os.getpid(), signal.SIGUSR1)
        return take(self, batch, step, *rest)

    Stepper.__call__ = warned
    importlib.import_module("frossl.train.pretrain").write_report = lambda runs, output, **_: output
    patched = {"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}
    options = "--name r --resume auto --no-evaluate --batch 8 --length 3ep --projector 16-bn-relu-16 --workers 0"
    options += " --device cpu --precision 32 --log-every 1 --rank-timeout 60 --held-out 0.2 --monitor-every 100%"
    words = ["pretrain", str(images), "--out", str(out / "runs"), *options.split()]
    cli.main([*words, "--backbone-options", json.dumps(patched)])


def started_by_srun(images: Path, out: Path, rank: int) -> int:
    """:func:`under_slurm` in an interpreter of its own, as srun starts it; its number."""
    program = "import sys; from pathlib import Path; from test_train_ranks import under_slurm; "
    program += "under_slurm(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))"
    with (out / f"said.{rank}.txt").open("a") as said:
        task = subprocess.Popen(
            [sys.executable, "-c", program, str(images), str(out), str(rank)],
            stdout=said,
            stderr=said,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        )
    return task.pid


def test_tasks_of_a_scheduler_save_when_it_warns_them_and_the_same_command_ends_the_run(images, tmp_path):
    for wanted in (128 + signal.SIGUSR1, 0):
        (tmp_path / "port").write_text(str(free_port()))
        tasks = [started_by_srun(images, tmp_path, rank) for rank in range(2)]
        assert ended(tasks, 300) == [wanted] * 2, (tmp_path / "said.0.txt").read_text()
        assert (len(losses(tmp_path / "runs" / "r")) < 12) == (wanted > 0)
        (tmp_path / "again").touch()
    assert [step for step, _ in losses(tmp_path / "runs" / "r")] == list(range(1, 13))
    about = json.loads((tmp_path / "runs" / "r" / "config.json").read_text())
    assert about["environment"]["ranks"] == "2"


def measure_together(run: Path, out: Path, rank: int) -> None:
    """``frossl evaluate``, which notes who measures what."""
    noted: list[str] = []
    for room, name in (("frossl.evals.suite", "measure"), ("frossl.evals.finetune", "_tune")):
        module = importlib.import_module(room)
        real = getattr(module, name)
        setattr(module, name, lambda *how, real=real, name=name: noted.append(name) or real(*how))
    sys.modules["frossl.evals.finetune"].LEAST = 4
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", str(run), "--protocol", "knn", "finetune", "--device", "cpu"])
    (out / f"noted{rank}").write_text(" ".join(noted))
    assert not ended.value.code


def test_evaluations_on_ranks_are_measured_once_and_are_those_of_one_process(images, tmp_path):
    run = pretrain(config(images, tmp_path, name="r", length="1ep", precision="32")).run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("frossl.evals.finetune.LEAST", 4)
        evaluate_run(run, protocols=("knn", "finetune"), device="cpu")
    alone = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").unlink()
    said = tmp_path / "said"
    texts = finish(start_ranks(lambda rank: measure_together(run, tmp_path, rank), said), said)
    assert json.loads((run / "evaluation.json").read_text()) == alone
    first, second = ((tmp_path / f"noted{rank}").read_text().split() for rank in range(2))
    assert first.count("measure") == 3  # pretrained, untrained, raw pixels
    assert second.count("measure") == 0
    assert (first.count("_tune"), second.count("_tune")) == (2 * (2 + 1), 2 * 1)  # rates, and the best on all labels
    assert "held-out" in texts[0]
    assert texts[1].strip() == ""


def fail(where: str, rank: int) -> None:
    """The command line, as a rank whose other one dies during a backward pass or between steps, or fails itself."""
    torch.distributed.init_process_group("gloo")
    dist.all_reduce_max(0.0)

    def fails(*_, **__):
        if where == "own":
            raise RuntimeError("of one's own")
        network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
        loss = network(torch.ones(3, 2)).sum()
        if rank == 1:
            os._exit(9)
        loss.backward() if where == "backward" else dist.all_reduce_max(0.0)

    replay.run = fails
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


def train_and_note(images: Path, out: Path, rank: int) -> None:
    """A run by a clock of its own, on which steps take no time; which steps ranks meet after."""
    clock, met, real = itertools.count(0.0, 0.001), [], loop._Loop.meet
    loop.time = types.SimpleNamespace(perf_counter=lambda: next(clock))
    loop._Loop.meet = lambda self: (met.append(self.progress.step), real(self))
    pretrain(config(images, out, name="r", length="24it", log_every=8, monitor_every="100%"))
    (out / f"met{rank}").write_text(str(met))


def test_ranks_do_not_meet_at_every_step(images, tmp_path):
    finish(start_ranks(lambda rank: train_and_note(images, tmp_path, rank), tmp_path / "said"), tmp_path / "said")
    assert [(tmp_path / f"met{rank}").read_text() for rank in range(2)] == ["[1, 8, 16, 24, 24]"] * 2


def open_on_a_rank(images: Path, out: Path, rank: int) -> None:
    real, monitored = scan._scan, []
    scan._scan = lambda *how: monitored.append(1) or real(*how)
    with joined(config(images, out)):
        data = load_on_all_ranks(lambda: open_data(str(images), held_out=0.2))
    torch.save([len(monitored), data.train.images, data.test.labels, data.mean], out / f"{rank}.pt")


def test_only_the_first_rank_looks_through_the_images(images, tmp_path):
    ours = folder_of_images(tmp_path / "images")
    wanted = open_data(str(ours), held_out=0.2)
    finish(start_ranks(lambda rank: open_on_a_rank(ours, tmp_path, rank), tmp_path / "said"), tmp_path / "said")
    (first, *data), (second, *others) = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    assert (first, second) == (1, 0)
    for found in (data, others):
        assert torch.equal(found[0], wanted.train.images)
        assert torch.equal(found[1], wanted.test.labels)
        assert found[2] == wanted.mean


def command(images: Path, out: Path, *before: str) -> list[str]:
    options = "--no-evaluate --batch 8 --length 2ep --projector 16-bn-relu-16 --workers 0 --device cpu --precision 32"
    words = ["-m", *before, "frossl.cli", "pretrain", str(images), "--out", str(out), "--name", "r", *options.split()]
    return [sys.executable, *words, "--backbone-options", '{"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}']


def run_all(*commands: list[str]) -> list[str]:
    """What each said; all at once."""
    how = {"env": os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}}
    how |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(words, **how) for words in commands]
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0] * len(commands), said
    return [out for out, _ in said]


def trained_by_two(out: Path) -> None:
    assert {p.name for p in out.iterdir()} == {"r"}
    assert (out / "r" / "report.html").exists()
    assert json.loads((out / "r" / "config.json").read_text())["environment"]["ranks"] == "2"


def test_two_agents_of_torchrun_train_together(images, tmp_path):
    """As on two machines, from the images to the report."""
    place = f"--nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-id r --rdzv-endpoint localhost:{free_port()}"
    said = run_all(*2 * [command(images, tmp_path, "torch.distributed.run", *place.split(), "-m")])
    trained_by_two(tmp_path)
    assert "".join(said).count("Saved") == "".join(said).count("Report") == 1


def test_the_command_line_starts_ranks_itself(images, tmp_path):
    (said,) = run_all([*command(images, tmp_path), "--devices", "2", "--resume", "auto"])
    trained_by_two(tmp_path)
    assert said.count("Saved") == said.count("Report") == 1


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
    monkeypatch.setattr("frossl.train.ranks.launched", Launch)
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


@pytest.mark.parametrize(
    ("slurm", "local", "ranks", "seen", "wanted"),
    [(False, 1, 4, 4, 1), (True, 1, 4, 1, 0), (True, 1, 4, 4, 1), (False, 0, 1, 1, 0), (False, 1, 2, 1, None)],
)
def test_a_rank_takes_its_gpu_of_those_that_it_sees(monkeypatch, slurm, local, ranks, seen, wanted):
    monkeypatch.setattr("frossl.train.resources.launched", lambda: Launch(local, ranks, local, ranks, slurm))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    if wanted is None:
        with pytest.raises(UserError, match=r"2 ranks on this machine, but 1 GPU: rank 1"):
            _own_gpu()
    else:
        assert _own_gpu() == wanted


@pytest.mark.parametrize(
    ("bound", "room", "asked", "wanted"),
    [(4, 1e12, None, 4), (64, 1e12, None, 16), (8, 64e6, None, 3), (8, 1e6, None, 1), (8, 1e6, 9, 9)],
)
def test_workers_have_cores_and_shared_memory(images, tmp_path, monkeypatch, bound, room, asked, wanted):
    """Batches of 5 MB, of which each process holds two, in half of the room."""
    monkeypatch.setattr("frossl.train.resources.cores", lambda: bound)
    monkeypatch.setattr("frossl.train.resources.shared_memory", lambda: room)
    data = open_data(str(images), memory_limit=0)
    assert workers_for(config(images, tmp_path, workers=asked), data, 5_000_000) == wanted
