"""The script of docs/clusters.md, with a stand-in for the scheduler; and what happens when nobody reads the output."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from frossl import cli
from rank_programs import ended, forked
from test_cli import TINY, folder

DOCS = Path(__file__).parents[1] / "docs" / "clusters.md"
SRUN = """#!/bin/bash
# Two tasks, which are warned that the time of the first job is up; the exit code is the highest.
for task in 0 1; do "$@" & tasks+=($!); done
[ -e requeued ] || { sleep 0.3; kill -USR1 "${tasks[@]}"; }
for task in "${tasks[@]}"; do wait $task; code=$?; (( code > highest )) && highest=$code; done
exit ${highest:-0}
"""
FROSSL = """#!/bin/bash
# A run that needs two jobs.
echo "$@" >> commands
[ -e requeued ] || exec sleep 60
"""


def test_the_script_queues_a_job_again_until_the_run_is_done(tmp_path):
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(script.splitlines()) <= 10
    for name, text in {"srun": SRUN, "frossl": FROSSL, "scontrol": '#!/bin/bash\necho "$@" > requeued\n'}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "job").write_text(script)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "42"}
    how = {"cwd": tmp_path, "env": environment, "timeout": 60}
    assert subprocess.run(["bash", "job"], check=False, **how).returncode == 128 + signal.SIGUSR1
    assert (tmp_path / "requeued").read_text() == "requeue 42\n"
    assert subprocess.run(["bash", "job"], check=False, **how).returncode == 0
    assert set((tmp_path / "commands").read_text().splitlines()) == {"pretrain path/to/images --name big --resume auto"}


def unread(*words: object) -> None:
    """The command line, whose output goes to a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, closefd=False)
    cli.main([str(word) for word in words])


def test_a_run_whose_output_nobody_reads_finishes_and_its_log_has_it(tmp_path):
    options = ["--length", "2it", "--batch", 8, "--workers", 0, "--device", "cpu"]
    words = ["pretrain", folder(tmp_path / "images"), "--out", tmp_path, "--name", "r", *options, *TINY]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["frossl.evals.linear"], "PENALTIES", (1e-1, 1e-3))
        assert ended([forked(lambda: unread(*words), tmp_path / "said")]) == [0]
    log = (tmp_path / "r" / "log.txt").read_text()
    for part in ("images to train on", "step 2/2", "Saved", "pretrained", "raw pixels", "Report"):
        assert part in log
    assert (tmp_path / "r" / "report.html").exists()
    assert ended([forked(lambda: unread("evaluate", tmp_path / "none"), tmp_path / "said")]) == [2]
    assert ended([forked(lambda: unread("list", "methods"), tmp_path / "said")]) == [0]


def test_devices_are_counted_before_anything_is_started(frossl, monkeypatch):
    started: list[tuple[int, list[str]]] = []
    for room in ("pretrain", "evaluate"):
        monkeypatch.setattr(f"frossl.commands.{room}.start_ranks", lambda n, words: started.append((n, words)) or 7)
    assert frossl("pretrain", "data", "--devices", 2, "--device", "cpu", "--name", "r")[0] == 7
    assert started == [(2, ["pretrain", "data", "--device", "cpu", "--name", "r"])]
    code, said = frossl("pretrain", "data", "--devices", 0, "--device", "cpu")
    assert (code, "1 or more" in said) == (2, True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert frossl("pretrain", "data", "--devices=auto")[0] == 7
    assert started[1:] == [(4, ["pretrain", "data"])]
    code, said = frossl("pretrain", "data", "--devices", 5)
    assert (code, "1 to 4" in said) == (2, True)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    code, said = frossl("pretrain", "data", "--devices", 2, "--device", "cpu")
    assert (code, "leave it out" in said) == (2, True)
