"""Runs of a comparison as processes, one after the other or side by side on parts of the machine."""

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
    """The ``cores`` and the ``gpu``, as CUDA_VISIBLE_DEVICES names it, of one run; without cores the whole machine."""

    cores: tuple[int, ...] = ()
    gpu: str | None = None

    def start(self, command: Sequence[str], run: Run) -> subprocess.Popen[bytes]:
        """Starts ``command`` as a process on this part; its output goes to ``logs/NAME.txt``."""
        more = {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu}
        if self.cores:
            more |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(len(self.cores)))
        with run.log(".txt").open("ab") as file:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the comparison alone gets a Ctrl-C of the terminal, and passes it on
                env=os.environ | more,
            )
        if self.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(child.pid, self.cores)  # its later threads inherit them
        return child


def split_machine(jobs: Jobs, device: str) -> list[Part]:
    """A part of the machine for each of ``jobs`` side by side: an equal number of cores, and a GPU on ``device`` cuda.

    auto is a job for each GPU, or for each two cores on the CPU.

    Raises:
        UserError: there are fewer GPUs or cores than jobs.
    """
    cores, gpus = available_cores(), []
    if device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    auto = 1 if device == "mps" else len(gpus) or max(1, len(cores) // 2)
    count = auto if jobs == "auto" else jobs
    if count < 1:
        raise UserError(f"--jobs {count}: give the number of runs side by side, at least 1, or auto")
    if count == 1:
        return [Part()]
    most, what = {"cuda": (len(gpus), "GPUs"), "mps": (1, "GPU")}.get(device, (len(cores), "cores"))
    if count > most:
        raise UserError(f"--jobs {count}: there are only {most} {what}, and each run has one for itself")
    ends = [round(i * len(cores) / count) for i in range(count + 1)]
    return [Part(tuple(cores[start:end]), gpus[i] if gpus else None) for i, (start, end) in enumerate(pairwise(ends))]


def carry_out_all(
    runs: Sequence[Run],
    protocols: Sequence[str],
    command: list[str],
    console: Console,
    after: Callable[[], object],
    parts: Sequence[Part] = (Part(),),
) -> tuple[list[str], str | None]:
    """Runs ``command`` with the name of each run that is not over, on one of ``parts``, and calls ``after`` after each.

    A run that fails is reported and skipped. A signal to stop is passed on once to all processes, so that they can
    save. Returns the names of the runs that failed, and of the signal, if any.
    """
    failed: list[str] = []

    def say(run: Run, text: str, style: str = "") -> None:
        about = escape(f"[{runs.index(run) + 1}/{len(runs)}] {run.name}")
        console.print(f"{about}: {text}", style=style, highlight=False, soft_wrap=True)

    how = "one after the other" if len(parts) == 1 else f"{len(parts)} side by side"
    console.print(f"{len(runs)} runs, {how}; Ctrl-C saves and stops", highlight=False, soft_wrap=True)
    waiting = deque[Run]()
    for run in runs:
        if (state := run.state(protocols)) in OVER:
            say(run, f"{state} before", "dim")
        else:
            waiting.append(run)
    free, going = deque(parts), dict[subprocess.Popen[bytes], tuple[Run, Part]]()
    with stop_signals() as stopped, console.status("") as status:
        signalled = False
        try:
            while going or (waiting and not stopped):
                while waiting and free and not stopped:
                    run, part = waiting.popleft(), free.popleft()
                    going[part.start([*command, run.name], run)] = run, part
                if stopped and not signalled:
                    signalled = True
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
                        reason = f"with code {child.returncode}, see {log}: {last_line(log)}"
                        say(run, f"[red]failed[/] {escape(reason)}")
                    after()
        finally:
            for child in going:
                child.kill()
                child.wait()
    return failed, stopped[0] if stopped else None
