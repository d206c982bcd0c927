"""Runs in forked processes, one for each rank, that can be killed at any moment, and what they were made of."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from test_train_guard import narrow
from test_train_loop import config, losses

from frossl.methods import METHODS
from frossl.train.checkpoint import load_newest
from frossl.train.run import pretrain, read_run
from frossl.train.step import Stepper
from rank_programs import free_port, rank_environment

TRAINED = [name for name in METHODS if METHODS[name].trains]
LEAN: dict[str, Any] = {"length": "24it", "checkpoint_every": "3it", "precision": "32", "monitor_every": "40%"}


def forked(work: Callable[[], object], said: Path) -> int:
    """Runs ``work`` in a process of its own, whose output goes to ``said``; gives its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        file = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        work()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def started(run: Path, asked: Any, ranks: int, seen: Path | None = None) -> list[int]:
    """Processes that begin the run ``asked`` for, or go on with it where there is a checkpoint.

    Each adds to ``seen``, if given, a line for every step: step, images, and a hash of their views.
    """
    port = free_port()

    def work(rank: int) -> None:
        torch.set_num_threads(1)
        if ranks > 1:
            os.environ.update(rank_environment(rank, ranks, port))
        if seen is not None:
            note_batches(seen.with_suffix(f".{rank}"))
        if (run / "checkpoints").exists():
            pretrain(read_run(run)[0], resume=run)
        else:
            pretrain(asked)

    run.parent.mkdir(parents=True, exist_ok=True)
    return [forked(lambda rank=rank: work(rank), run.parent / f"{run.name}.{rank}.txt") for rank in range(ranks)]


def note_batches(path: Path) -> None:
    take = Stepper.__call__
    measured = [3]  # steps that only measure the time

    def noting(self: Stepper, batch: Any, step: int, *rest: Any) -> Any:
        if measured[0]:
            measured[0] -= 1
        else:
            views = hashlib.sha256(b"".join(x.numpy().tobytes() for x in batch.views)).hexdigest()[:16]
            with path.open("a") as file:
                file.write(json.dumps([step, batch.index_N.tolist(), views]) + "\n")
        return take(self, batch, step, *rest)

    Stepper.__call__ = noting  # type: ignore[method-assign]


def ended(processes: list[int]) -> list[int]:
    """Exit codes, when all have ended."""
    return [os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in processes]


def same_run(a: Path, b: Path) -> bool:
    """Whether losses and final weights are bit for bit the same."""
    one, two = (load_file(run / "encoder.safetensors") for run in (a, b))
    return losses(a) == losses(b) and one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def asked_for(images: Path, out: Path, name: str, method: str = "frossl", **changes: Any) -> Any:
    return config(images, out, name=name, method=method, objective=narrow(method), **LEAN | changes)


def killed_once(images: Path, out: Path, number: int, method: str, ranks: int, whole: Path, seconds: float) -> dict:
    """One run, killed at a random moment of the ``seconds`` it takes, and gone on with until its end."""
    draw = random.Random(f"{number} {ranks}")
    run = out / f"killed{number}"
    asked = asked_for(images, out, run.name, method)
    after = draw.uniform(0, seconds)
    processes = started(run, asked, ranks)
    time.sleep(after)
    victims = processes if draw.random() < 0.5 else [draw.choice(processes)]
    for p in victims:
        os.kill(p, signal.SIGKILL)
    codes = ended(processes)
    partial = [p.name for p in run.rglob("*.partial")]
    logged = losses(run)[-1][0] if (run / "metrics.jsonl").exists() and losses(run) else 0
    saved = 0
    if (run / "checkpoints").exists() and any((run / "checkpoints").glob("step-*")):
        saved = load_newest(run, lambda text: None)[1]["step"]
    if not saved:  # killed before the first save: the directory is begun anew, as a person would
        import shutil

        shutil.rmtree(run, ignore_errors=True)
    resumed = ended(started(run, asked, ranks))
    return {
        "after_seconds": after,
        "codes": codes,
        "partial_files": partial,
        "saved_step": saved,
        "lost_steps": max(0, logged - saved),
        "resumed": all(code == 0 for code in resumed),
        "same": all(code == 0 for code in resumed) and same_run(run, whole),
    }


def stopped_midway(images: Path, out: Path, step: int, workers: int, ranks: int, whole: Path) -> dict:
    """One run that ends after ``step`` steps of its 24 and is gone on with; which images were seen when."""
    run = out / f"stopped{step}"
    asked = asked_for(images, out, run.name, checkpoint_every=f"{step}it", workers=workers, size=16)

    def die(self: Stepper, batch: Any, at: int, *rest: Any) -> Any:
        if at == step:
            os._exit(9)
        return take(self, batch, at, *rest)

    take = Stepper.__call__
    Stepper.__call__ = die  # type: ignore[method-assign]
    try:
        ended(started(run, asked, ranks, out / run.name))
    finally:
        Stepper.__call__ = take  # type: ignore[method-assign]
    codes = ended(started(run, asked, ranks, out / run.name))
    differing = repeated = missed = 0
    for rank in range(ranks):
        wanted, got = (
            [json.loads(line) for line in p.read_text().splitlines()]
            for p in (whole.with_suffix(f".{rank}"), (out / run.name).with_suffix(f".{rank}"))
        )
        got = [row for i, row in enumerate(got) if row[0] != step or i == step]  # the step it died at was not taken
        taken = [row[0] for row in got]
        repeated += len(taken) - len(set(taken))
        missed += len({row[0] for row in wanted} - set(taken))
        differing += sum(row not in wanted for row in got)
    return {
        "codes": codes,
        "differing": differing,
        "repeated": repeated,
        "missed": missed,
        "same": same_run(run, whole),
    }


def timed(images: Path, out: Path, name: str, ranks: int, seen: bool = False, **changes: Any) -> float:
    """Seconds of the run that nobody stops; raises if it fails."""
    start = time.perf_counter()
    codes = ended(started(out / name, asked_for(images, out, name, **changes), ranks, out / name if seen else None))
    assert codes == [0] * ranks, "\n".join(p.read_text() for p in out.glob(f"{name}.*.txt"))
    return time.perf_counter() - start
