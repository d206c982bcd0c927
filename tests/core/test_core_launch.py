"""What launchers say, and how many cores a rank has."""

from __future__ import annotations

import os
import signal

import pytest

from frossl.core import launch
from frossl.core.launch import Launch, cores, launched, start_ranks
from frossl.core.types import UserError
from rank_programs import rank_environment


@pytest.fixture
def environment(monkeypatch):
    """Only these variables of launchers."""

    def set_to(**values: str) -> None:
        for name in list(os.environ):
            if name.startswith(("SLURM", "TORCHELASTIC")) or name in rank_environment(0, 2, 0):
                monkeypatch.delenv(name)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_to


SLURM = {"SLURM_NTASKS": "11", "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_NODEID": "2", "SLURM_JOB_ID": "7"}
SLURM |= {"SLURM_STEP_NUM_TASKS": "11"}
SCRIPT = {"SLURM_NTASKS": "11", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "7"}
"""What a plain command in the script of a job sees."""


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({}, Launch()),
        (rank_environment(1, 2, 0), Launch(1, 2, 1, 2)),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4(x2),3"}, Launch(9, 11, 1, 3, slurm=True)),
        (SLURM | {"SLURM_TASKS_PER_NODE": "4,4,3"}, Launch(9, 11, 1, 3, slurm=True)),
        (SLURM | {"SLURM_NTASKS_PER_NODE": "4"}, Launch(9, 11, 1, 4, slurm=True)),
        (SLURM | {"SLURM_JOB_NAME": "interactive"}, Launch()),
        (SCRIPT | {"SLURM_TASKS_PER_NODE": "4(x2),3"}, Launch()),
        (SCRIPT | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1"}, Launch()),
    ],
)
def test_the_place_of_a_rank(environment, values, place):
    environment(**values)
    assert launched() == place


def test_several_ranks_without_their_numbers_are_refused(environment):
    environment(WORLD_SIZE="2")
    with pytest.raises(UserError, match="torchrun's other variables"):
        launched()


@pytest.mark.parametrize(
    ("values", "bound", "wanted"),
    [
        ({}, 6, 6),
        (rank_environment(1, 4, 0), 6, 1),
        (rank_environment(1, 3, 0), 12, 4),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4(x2),3", "SLURM_CPUS_PER_TASK": "8"}, 8, 8),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4(x2),3"}, 12, 4),
    ],
)
def test_ranks_share_the_cores_that_they_are_bound_to(environment, monkeypatch, values, bound, wanted):
    environment(**values)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(bound), raising=False)
    assert cores() == wanted


@pytest.mark.parametrize(("code", "wanted"), [(3, 3), (-signal.SIGUSR1, 128 + signal.SIGUSR1), (None, 0)])
def test_ranks_are_started_by_torchrun_and_the_first_failure_is_the_exit_code(environment, monkeypatch, code, wanted):
    environment()
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    asked = []

    def start(args: object) -> None:
        asked.append(args)
        if code is not None:
            raise ChildFailedError("x", {1: ProcessFailure(1, 2, code, "")})

    monkeypatch.setattr(run, "run", start)
    monkeypatch.setattr(launch, "cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("PET_SIGNALS_TO_HANDLE", "")
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "")
    monkeypatch.delenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT")
    assert start_ranks(2, ["pretrain", "data", "--lr", "1"]) == wanted
    (args,) = asked
    assert (args.nproc_per_node, args.training_script) == ("2", "frossl.cli")
    assert args.training_script_args == ["pretrain", "data", "--lr", "1"]
    assert os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "300"
    assert args.standalone
    assert args.module
