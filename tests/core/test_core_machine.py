"""What is told of the machine, and what is asked of its allocator."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, torch
from frossl.core.machine import keep_freed_pages
keep_freed_pages()
for step in range(40):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = [torch.ones(2**20 * mebi // 4) for mebi in (64, 3, 40)]
    del kept
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_memory_of_one_step_serves_the_next():
    said = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, timeout=120, check=True)
    faults = [int(line) for line in said.stdout.split()]
    assert faults[0] > 1000  # 107 MiB are touched for the first time, in pages of 64 KiB at most
    # Until blocks of all sizes fit beside each other some steps take more; mapped anew, all 39 would take as much.
    assert sum(faults[1:]) < 10 * faults[0]
