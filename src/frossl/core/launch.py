"""How this process was started: by itself, or by torchrun or srun as one rank of several."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from frossl.core.types import UserError


@dataclass(frozen=True)
class Launch:
    """Place of this process among all that were started, and among those on this machine."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    local_ranks: int = 1
    slurm: bool = False


def launched() -> Launch:
    """What torchrun or srun said.

    Raises:
        UserError: the environment speaks of several ranks without saying which of them this process is.
    """
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return Launch(*(int(env[name]) for name in names))
    interactive = env.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if int(env.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in env and not interactive:
        rank, ranks, local = (int(env[name]) for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
        return Launch(rank, ranks, local, _tasks_here(ranks), slurm=True)
    if int(env.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            f"WORLD_SIZE is {env['WORLD_SIZE']}, but torchrun's other variables are missing; start several ranks with "
            "--devices N, with torchrun --nproc-per-node N -m frossl.cli pretrain ..., or with srun"
        )
    return Launch()


def _tasks_here(ranks: int) -> int:
    """Tasks of this step on this machine: SLURM writes ``4(x2),3`` for three machines."""
    env = os.environ
    counts: list[int] = []
    text = env.get("SLURM_STEP_TASKS_PER_NODE") or env.get("SLURM_TASKS_PER_NODE", "")
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(count)] * int(times or 1)
    node = int(env.get("SLURM_NODEID", "0"))
    return counts[node] if node < len(counts) else int(env.get("SLURM_NTASKS_PER_NODE", ranks))


def cores() -> int:
    """Processor cores that this rank may use: those it is bound to, shared out among the ranks that share them."""
    here = launched()
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if here.slurm:  # which binds each task to its own
        return min(bound, int(os.environ.get("SLURM_CPUS_PER_TASK", max(1, bound // here.local_ranks))))
    return max(1, bound // here.local_ranks)
