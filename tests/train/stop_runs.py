"""Runs in forked processes, one for each rank, that can be killed at any moment, and what they were made of."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from test_train_guard import narrow
from test_train_loop import config, losses

from frossl.methods import METHODS
from frossl.runs.checkpoint import ended_before_a_save, load_newest
from frossl.runs.directory import read_run
from frossl.runs.log import read_rows
from frossl.train.pretrain import pretrain
from frossl.train.step import Stepper
from rank_programs import ended, start_ranks

TRAINED = [name for name in METHODS if METHODS[name].trains]
LEAN: dict[str, Any] = {
    "length": "24it",
    "checkpoint_every": "3it",
    "precision": "32",
    "monitor_every": "40%",
    "rank_timeout": 60.0,
}


def started(run: Path, asked: Any, ranks: int, seen: Path | None = None, last: int | None = None) -> list[int]:
    """Processes that begin the run ``asked`` for, or go on with it where it has begun.

    Each adds to ``seen``, if given, a line for every step: step, images, and a hash of their views; and dies after
    ``last`` steps, if given.
    """

    def work(rank: int) -> None:
        if seen is not None:
            note_batches(seen.with_suffix(f".{rank}"), last)
        if (run / "config.json").exists():
            pretrain(read_run(run)[0], resume=run, console=Console(width=200))
        else:
            pretrain(asked)

    run.parent.mkdir(parents=True, exist_ok=True)
    return start_ranks(work, run, ranks)


def note_batches(path: Path, last: int | None) -> None:
    take = Stepper.__call__
    measured = [3]  # steps that only measure the time

    def noting(self: Stepper, batch: Any, step: int, *rest: Any) -> Any:
        if measured[0]:
            measured[0] -= 1
        elif step == last:
            os._exit(9)
        else:
            views = hashlib.sha256(b"".join(x.numpy().tobytes() for x in batch.views)).hexdigest()[:16]
            with path.open("a") as file:
                file.write(json.dumps([step, batch.index_N.tolist(), views]) + "\n")
        return take(self, batch, step, *rest)

    Stepper.__call__ = noting  # type: ignore[method-assign]


def worked(process: int) -> float:
    """Processor seconds of a process so far, of its threads too; what else the machine does is not in them."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return float("inf") if fields[0] == "Z" else sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def same_run(a: Path, b: Path) -> bool:
    """Whether losses and final weights are bit for bit the same."""
    one, two = (load_file(run / "encoder.safetensors") for run in (a, b))
    return losses(a) == losses(b) and one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def asked_for(images: Path, out: Path, name: str, method: str = "frossl", **changes: Any) -> Any:
    return config(images, out, name=name, method=method, objective=narrow(method), **LEAN | changes)


def killed_once(images: Path, out: Path, number: int, method: str, ranks: int, whole: Path, work: float) -> dict:
    """One run, killed after a random part of the ``work`` that one rank of it does, and gone on with until its end.

    Where it was killed before there was anything to go on with, the same command is given again.
    """
    draw = random.Random(f"{number} {ranks}")
    run = out / f"killed{number}"
    asked = asked_for(images, out, run.name, method)
    after = draw.uniform(0, work)
    processes = started(run, asked, ranks)
    while worked(processes[0]) < after:
        time.sleep(0.002)
    victims = processes if draw.random() < 0.5 else [draw.choice(processes)]
    for p in victims:
        os.kill(p, signal.SIGKILL)
    codes = ended(processes)
    partial = [p.name for p in run.rglob("*.partial")]
    logged = losses(run)[-1][0] if (run / "metrics.jsonl").exists() and losses(run) else 0
    begun = (run / "config.json").exists()
    saved = 0 if not begun or ended_before_a_save(run) else load_newest(run, pytest.fail)[1]["step"]
    if not begun:
        asked = dataclasses.replace(asked, name=f"{run.name}-2")
        run = out / asked.name
    resumed = ended(started(run, asked, ranks))
    return {
        "after_seconds": after,
        "codes": codes,
        "partial_files": partial,
        "begun": begun,
        "saved_step": saved,
        "lost_steps": max(0, logged - saved),
        "resumed": all(code == 0 for code in resumed),
        "same": all(code == 0 for code in resumed) and same_run(run, whole),
    }


def stopped_midway(images: Path, out: Path, step: int, workers: int, ranks: int, whole: Path) -> dict:
    """One run that ends after ``step`` steps of its 24 and is gone on with; which images were seen when."""
    run = out / f"stopped{step}"
    asked = asked_for(images, out, run.name, checkpoint_every=f"{step}it", workers=workers, size=16)
    died = ended(started(run, asked, ranks, seen=run, last=step))
    codes = ended(started(run, asked, ranks, seen=run))
    differing = repeated = missed = 0
    for rank in range(ranks):
        wanted, got = (
            [json.loads(line) for line in p.with_suffix(f".{rank}").read_text().splitlines()] for p in (whole, run)
        )
        taken = [row[0] for row in got]
        repeated += len(taken) - len(set(taken))
        missed += len({row[0] for row in wanted} - set(taken))
        differing += sum(row not in wanted for row in got)
    return {
        "died": died,
        "codes": codes,
        "differing": differing,
        "repeated": repeated,
        "missed": missed,
        "same": same_run(run, whole),
    }


def another_world(images: Path, out: Path, whole: Path, **changes: Any) -> dict:
    """A run by one process to step 12, by two ranks to step 36, and by one to its end, against one process."""
    run = out / "changing"
    asked = asked_for(images, out, run.name, checkpoint_every="12it", **changes)
    codes = [ended(started(run, asked, ranks, run, last)) for ranks, last in ((1, 12), (2, 36), (1, None))]
    assert codes == [[9], [9, 9], [0]], "\n".join(p.read_text() for p in out.glob("changing.*.txt"))
    batches: dict[int, list[int]] = {}
    for rank in range(2):
        for line in run.with_suffix(f".{rank}").read_text().splitlines():
            step, images_N, _ = json.loads(line)
            batches.setdefault(step, []).extend(images_N)
    wanted = {step: images_N for step, images_N, _ in map(json.loads, whole.with_suffix(".0").read_text().splitlines())}
    one, other = ([row for row in read_rows(p / "metrics.jsonl") if row["kind"] == "train"] for p in (whole, run))
    pairs = list(zip(one, other, strict=True))
    errors = [abs(a["loss"] - b["loss"]) for a, b in pairs]
    of_loss = [error / abs(a["loss"]) for error, (a, _) in zip(errors, pairs, strict=True)]
    of_terms = [error / (abs(a["entropy"]) + abs(a["invariance"])) for error, (a, _) in zip(errors, pairs, strict=True)]
    return {
        "steps": len(pairs),
        "same_images": batches == wanted,
        "within_1e-6": next((i for i, error in enumerate(of_loss) if error > 1e-6), len(pairs)),
        "loss_error": max(of_loss),
        "terms_error": max(of_terms),
    }


def whole_run(images: Path, out: Path, name: str, ranks: int, seen: bool = False, **changes: Any) -> float:
    """The run that nobody stops; gives the processor seconds of one rank, and raises if one fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    codes = ended(started(out / name, asked_for(images, out, name, **changes), ranks, out / name if seen else None))
    assert codes == [0] * ranks, "\n".join(p.read_text() for p in out.glob(f"{name}.*.txt"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / ranks
