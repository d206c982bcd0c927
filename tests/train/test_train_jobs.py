"""Runs side by side: each has its part of the machine, and stopping leaves no process behind."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from frossl.core.types import UserError
from frossl.runs.config import Config
from frossl.train import jobs
from frossl.train.jobs import Part, carry_out_all, split_machine
from frossl.train.planned import Run

BESIDE_RUN = """
import json, pathlib, sys, time
out, name = pathlib.Path(sys.argv[1]), sys.argv[2]
began = time.monotonic()
if name == "fails":
    sys.exit("no memory")
(out / name).mkdir()
try:
    time.sleep(30 if name.startswith("long") else 0.5)
except KeyboardInterrupt:
    (out / name / "saved").touch()
    sys.exit(130)
outcome = {"state": "trained", "evaluated": ["knn"], "span": [began, time.monotonic()]}
(out / name / "outcome.json").write_text(json.dumps(outcome))
"""
"""Stands for a run of a comparison."""


def plan(out: Path, *names: str) -> list[Run]:
    return [Run.plan(name, name, "1ep", Config(data="things"), out, {}) for name in names]


def carry_out(out: Path, runs: list[Run], parts: int, after=lambda: None) -> tuple[list[str], str | None]:
    command = [sys.executable, "-S", "-c", BESIDE_RUN, str(out)]
    return carry_out_all(runs, ["knn"], command, Console(quiet=True), after, [Part()] * parts)


def test_cores_are_shared_out_and_none_twice(monkeypatch):
    monkeypatch.setattr(jobs, "available_cores", lambda: [0, 1, 2, 3, 6, 7, 8, 9])
    parts = split_machine(3, "cpu")
    assert sorted(core for part in parts for core in part.cores) == [0, 1, 2, 3, 6, 7, 8, 9]
    assert {len(part.cores) for part in parts} == {2, 3}
    assert len(split_machine("auto", "cpu")) == 4
    assert split_machine(1, "cpu") == [Part()]
    with pytest.raises(UserError, match="only 8 cores"):
        split_machine(9, "cpu")
    with pytest.raises(UserError, match="at least 1"):
        split_machine(0, "cpu")


def test_each_run_has_a_gpu_of_those_that_are_visible(monkeypatch):
    monkeypatch.setattr(jobs, "available_cores", lambda: list(range(4)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [part.gpu for part in split_machine("auto", "cuda")] == ["4", "7"]
    with pytest.raises(UserError, match="only 2 GPUs"):
        split_machine(3, "cuda")
    assert split_machine("auto", "mps") == [Part()]
    with pytest.raises(UserError, match="only 1 GPU"):
        split_machine(2, "mps")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot keep processes to cores")
def test_a_process_keeps_to_its_part(tmp_path):
    core = max(os.sched_getaffinity(0))
    (run,) = plan(tmp_path, "a")
    shown = "os.sched_getaffinity(0), os.environ['OMP_NUM_THREADS'], os.environ['CUDA_VISIBLE_DEVICES']"
    child = Part((core,), "3").start([sys.executable, "-c", f"import os, time; time.sleep(0.5); print({shown})"], run)
    assert child.wait() == 0
    assert run.log(".txt").read_text() == f"{{{core}}} 1 3\n"


def test_as_many_runs_as_there_are_parts_are_at_it_at_once(tmp_path):
    runs = plan(tmp_path, "a", "fails", "b", "c")
    failed, stopped = carry_out(tmp_path, runs, 2)
    assert (failed, stopped) == (["fails"], None)
    spans = [json.loads((tmp_path / name / "outcome.json").read_text())["span"] for name in "abc"]
    at_once = [sum(start <= at < end for start, end in spans) for at, _ in spans]
    assert max(at_once) == 2
    assert carry_out(tmp_path, runs[:1], 1, after=lambda: pytest.fail("it was over")) == ([], None)


def test_ctrl_c_stops_all_runs_and_keeps_what_is_finished(tmp_path):
    runs = plan(tmp_path, "a", "long-1", "long-2", "waits")
    began = time.monotonic()

    def stop_once() -> None:
        if not (tmp_path / "asked").exists():
            (tmp_path / "asked").touch()
            while not all((tmp_path / name).exists() for name in ("long-1", "long-2")):
                time.sleep(0.05)
            signal.raise_signal(signal.SIGINT)

    assert carry_out(tmp_path, runs, 3, stop_once) == ([], "SIGINT")
    assert time.monotonic() - began < 25
    assert runs[0].state(["knn"]) == "done"
    assert all((tmp_path / name / "saved").exists() for name in ("long-1", "long-2"))
    assert not (tmp_path / "waits").exists()
