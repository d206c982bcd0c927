"""What a run is made on."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from frossl.core.device import device_environment, has_context, peak_bytes
from frossl.core.distributed import world_size

MMAP_MAX, TRIM_THRESHOLD = -4, -1
"""Options of glibc's ``mallopt``: most blocks mapped by themselves; free bytes from which on pages are given back."""


def machine() -> dict[str, str]:
    """Processor, cores, accelerator if any, system, Python, and the commit of this package if it is a checkout."""
    told = {
        "processor": processor(),
        "cores": str(os.cpu_count() or 1),
        "accelerator": torch.cuda.get_device_name() if has_context() else "",
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": commit(),
    }
    return {name: value for name, value in told.items() if value}


def processor() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def peak_memory(device: str) -> int | None:
    """Most bytes that this process had in memory, or its run on ``device`` where that is CUDA; None if not told."""
    if device == "cuda":
        return peak_bytes()
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), None)


def has_compiler() -> bool:
    """Whether there is the compiler that torch.compile asks for on the CPU."""
    usual = "clang++" if sys.platform == "darwin" else "g++"
    return sys.platform != "win32" and shutil.which(os.environ.get("CXX", usual)) is not None


def keep_freed_pages() -> None:
    """Keeps what is freed for the next step instead of giving it back to the system, where glibc is the allocator.

    By default tensors of 32 MiB and more are mapped anew, and zeroed page by page, at each step.
    """
    if platform.libc_ver()[0] == "glibc":
        allocator = ctypes.CDLL(None)
        for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1)):
            allocator.mallopt(option, value)


def commit() -> str:
    """Hash of the commit that this package is at, marked if files were changed since; empty if it is no checkout."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return ""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.check_output(command, cwd=root, stderr=subprocess.DEVNULL, text=True, timeout=10).strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def environment() -> dict[str, str]:
    """What bit-identity depends on besides the configuration."""
    return {
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "views": "uint8",  # what crops are resampled in on the CPU
        "ranks": str(world_size()),
        **device_environment(),
    }
