"""Ranks of a program in forked processes, as torchrun would start them, but with everything imported already."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

OF_A_RUN = ("lightning_fabric", "plotly.offline", "timm", "torch._dynamo", "torch.utils.tensorboard", "torchvision")
"""What takes seconds to import and a run imports when it comes to it."""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return int(s.getsockname()[1])


def rank_environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What torchrun tells a rank on one machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
        "OMP_NUM_THREADS": "1",
    }


def forked(work: Callable[[], object], said: Path) -> int:
    """Runs ``work`` in a process of its own, whose output goes to ``said``; gives its number."""
    for name in OF_A_RUN:
        importlib.import_module(name)  # here, and not anew in every process
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        file = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))  # not pytest's
        torch.set_num_threads(1)
        work()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start_ranks(work: Callable[[int], object], said: Path, ranks: int = 2) -> list[int]:
    """One process per rank, which does ``work`` of its number; what it says goes to ``said``, with the number added."""
    port = free_port()

    def ranked(rank: int) -> None:
        if ranks > 1:
            os.environ.update(rank_environment(rank, ranks, port))
        work(rank)

    return [forked(lambda rank=rank: ranked(rank), file_of(said, rank)) for rank in range(ranks)]


def file_of(said: Path, rank: int) -> Path:
    return said.with_name(f"{said.name}.{rank}.txt")


def ended(processes: list[int], seconds: float = 600) -> list[int]:
    """Exit codes, when all have ended; those that have not after so many seconds are killed, and it fails."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + seconds
    while len(codes) < len(processes) and time.monotonic() < deadline:
        for p in processes:
            if p not in codes and (found := os.waitpid(p, os.WNOHANG))[0]:
                codes[p] = os.waitstatus_to_exitcode(found[1])
        time.sleep(0.02)
    late = [p for p in processes if p not in codes]
    killed(late)
    assert not late, f"{len(late)} of {len(processes)} processes had not ended after {seconds:g} s"
    return [codes[p] for p in processes]


def killed(processes: list[int]) -> None:
    for p in processes:
        os.kill(p, signal.SIGKILL)
        os.waitpid(p, 0)


def finish(processes: list[int], said: Path) -> list[str]:
    """Waits for all and gives what they said; fails with it if one of them failed."""
    codes = ended(processes)
    texts = [file_of(said, rank).read_text() for rank in range(len(processes))]
    assert not any(codes), "\n".join(texts)
    return texts


def outlived(processes: list[int], number: int, said: Path, seconds: float = 120) -> tuple[int, str]:
    """Exit code of one rank and what it said; the others, which would never end, are killed."""
    try:
        (code,) = ended([processes[number]], seconds)
    finally:
        killed([p for i, p in enumerate(processes) if i != number])
    return code, file_of(said, number).read_text()
