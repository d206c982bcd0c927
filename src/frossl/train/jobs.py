"""Runs of a comparison in processes of their own, one after the other or side by side on parts of the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from rich.console import Console
from rich.markup import escape

from frossl.core.files import last_line
from frossl.core.machine import available_cores
from frossl.core.types import UserError
from frossl.train.planned import OVER, Run
from frossl.train.signals import stop_signals

Jobs = int | Literal["auto"]


@dataclass(frozen=True)
class Part:
    """A part of the machine that one run has for itself: ``cores``, and a ``gpu``, as CUDA_VISIBLE_DEVICES names it.

    Without cores it is the whole machine.
    """

    cores: tuple[int, ...] = ()
    gpu: str | None = None

    def start(self, command: Sequence[str], run: Run) -> subprocess.Popen[bytes]:
        """``command`` in a process of its own that keeps to this part; what it prints goes to ``logs/NAME.txt``."""
        more = {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu}
        if self.cores:
            more |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(len(self.cores)))
        with run.log(".txt").open("ab") as file:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal goes to the comparison alone, which passes it on
                env=os.environ | more,
            )
        if self.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(child.pid, self.cores)  # threads that it starts later keep to them too
        return child


def split_machine(jobs: Jobs, device: str) -> list[Part]:
    """A part for each of ``jobs`` that run side by side: a GPU each on ``device`` cuda, and the cores shared out.

    auto is a job for each GPU, or for each two cores on the CPU.

    Raises:
        UserError: there are fewer GPUs or cores than jobs.
    """
    cores = available_cores()
    gpus = _gpus() if device == "cuda" else []
    auto = 1 if device == "mps" else len(gpus) or max(1, len(cores) // 2)
    count = auto if jobs == "auto" else jobs
    if count < 1:
        raise UserError(f"--jobs {count}: give the number of runs side by side, at least 1, or auto")
    if count == 1:
        return [Part()]
    there = {"cuda": (len(gpus), "GPUs"), "mps": (1, "GPU")}.get(device, (len(cores), "cores"))
    if count > there[0]:
        raise UserError(f"--jobs {count}: there are only {there[0]} {there[1]}, and each run has one for itself")
    ends = [round(i * len(cores) / count) for i in range(count + 1)]
    shares = [tuple(cores[start:end]) for start, end in pairwise(ends)]
    return [Part(share, gpus[i] if gpus else None) for i, share in enumerate(shares)]


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]


def carry_out_all(
    runs: Sequence[Run],
    protocols: Sequence[str],
    command: list[str],
    console: Console,
    after: Callable[[], object],
    parts: Sequence[Part] = (Part(),),
) -> tuple[list[str], str | None]:
    """Each run that is not over, by ``command`` and its name in a process on one of ``parts``, then ``after``.

    A run that fails is told and passed over. A request to stop is passed on once to all that are at it, so that they
    can save. Returns the names of those that failed, and the name of the signal that stopped it all, if any.
    """
    failed: list[str] = []

    def say(run: Run, text: str, style: str = "") -> None:
        about = escape(f"[{runs.index(run) + 1}/{len(runs)}] {run.name}")
        console.print(f"{about}: {text}", style=style, highlight=False, soft_wrap=True)

    how = "one after the other" if len(parts) == 1 else f"{len(parts)} side by side"
    console.print(f"{len(runs)} runs, {how}; Ctrl-C saves and stops", highlight=False, soft_wrap=True)
    for run in runs:
        if (state := run.state(protocols)) in OVER:
            say(run, f"{state} before", "dim")
    waiting = deque(run for run in runs if run.state(protocols) not in OVER)
    free, going = deque(parts), dict[subprocess.Popen[bytes], tuple[Run, Part]]()
    with stop_signals() as stopped, console.status("") as status:
        told = False
        try:
            while going or (waiting and not stopped):
                while waiting and free and not stopped:
                    run, part = waiting.popleft(), free.popleft()
                    going[part.start([*command, run.name], run)] = run, part
                if stopped and not told:
                    told = True
                    for child in going:
                        child.send_signal(signal.SIGINT)
                time.sleep(0.2)
                status.update("; ".join(f"{r.name}  {escape(last_line(r.log('.txt')))}" for r, _ in going.values()))
                for child in [child for child in going if child.poll() is not None]:
                    run, part = going.pop(child)
                    free.append(part)
                    state = run.state(protocols)
                    if state in OVER:
                        say(run, state)
                    elif stopped:
                        say(run, f"stopped by {stopped[0]}, saved; the same command goes on")
                    else:
                        failed.append(run.name)
                        log = run.log(".txt")
                        why = f"with code {child.returncode}, see {log}: {last_line(log)}"
                        say(run, f"[red]failed[/] {escape(why)}")
                    after()
        finally:
            for child in going:
                child.kill()
                child.wait()
    return failed, stopped[0] if stopped else None
