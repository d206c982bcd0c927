"""Starts several ranks of a test program, as torchrun would, without its agent."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return int(s.getsockname()[1])


def rank_environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What torchrun tells a rank on one machine."""
    return os.environ | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(
            [str(HERE.parent / "src"), str(HERE), str(HERE / "train"), os.environ.get("PYTHONPATH", "")]
        ),
    }


def start_ranks(program: str, *arguments: object, ranks: int = 2, **more: str) -> list[subprocess.Popen]:
    """One process per rank, which runs ``program`` with ``arguments`` in ``sys.argv``."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            env=rank_environment(rank, ranks, port) | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]


def finish(processes: list[subprocess.Popen], seconds: float = 1200) -> list[str]:
    """Waits for all and gives what they said; fails with it if one of them failed."""
    try:
        said = [p.communicate(timeout=seconds)[0] for p in processes]
    finally:
        for p in processes:
            p.kill()
    assert all(p.returncode == 0 for p in processes), "\n".join(said)
    return said


def outlived(processes: list[subprocess.Popen], number: int, seconds: float = 120) -> tuple[int, str]:
    """Exit code of one rank and what it said; the others, which would never end, are killed."""
    try:
        said = processes[number].communicate(timeout=seconds)[0]
    finally:
        for p in processes:
            p.kill()
            p.wait()
    return processes[number].returncode, said
