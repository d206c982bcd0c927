"""How this process was started, alone or as a rank of torchrun or srun; starts several ranks on this machine."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from frossl.core.machine import available_cores
from frossl.core.types import UserError


@dataclass(frozen=True)
class Launch:
    """The rank of this process among all ranks, and among those on this machine."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    local_ranks: int = 1
    slurm: bool = False


def launched() -> Launch:
    """The launch by torchrun or srun, from the environment.

    Raises:
        UserError: the environment has several ranks, but not the rank of this process.
    """
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        rank, ranks, local, here = (int(env[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        return Launch(rank, ranks, local, here)
    interactive = env.get("SLURM_JOB_NAME") in ("bash", "interactive")
    # Only srun sets variables of the step: the script of a job has SLURM_NTASKS too, and is one process.
    if int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in env and not interactive:
        rank, ranks, local = (int(env[name]) for name in ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"))
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
    """The number of cores for this rank: those it is bound to, divided by the ranks that share them."""
    here = launched()
    bound = len(available_cores())
    if here.slurm:  # SLURM binds each task to cores of its own
        return min(bound, int(os.environ.get("SLURM_CPUS_PER_TASK", max(1, bound // here.local_ranks))))
    return max(1, bound // here.local_ranks)


def start_ranks(count: int, command: Sequence[str]) -> int:
    """Runs ``frossl`` with ``command`` as ``count`` ranks on this machine, by torchrun.

    Returns the exit code: that of the first rank that failed, or 128 plus the number of the signal that stopped all.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
    # Variables, as older versions of torchrun do not have the flags. Signals that nohup ignores must not end the ranks.
    known = [n for n in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1") if hasattr(signal, n)]
    passed_on = [n for n in known if signal.getsignal(getattr(signal, n)) != signal.SIG_IGN]
    os.environ.setdefault("PET_SIGNALS_TO_HANDLE", ",".join(passed_on))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "300")  # seconds for stopped ranks to save
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # ranks print their own errors
    args = ["--standalone", "--nproc-per-node", str(count), "-m", "frossl.cli", *command]
    try:
        run.run(run.parse_args(args))
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code >= 0 else 128 - code
    except SignalException as error:
        return 128 + error.sigval
    return 0


def without(args: Sequence[str], flag: str) -> list[str]:
    """A command line without ``flag`` and its value.

    >>> without(["data", "--devices", "2", "--lr=1", "--devices=auto"], "--devices")
    ['data', '--lr=1']
    """
    kept = [arg for i, arg in enumerate(args) if arg != flag and (i == 0 or args[i - 1] != flag)]
    return [arg for arg in kept if not arg.startswith(f"{flag}=")]
