"""What a run is made on."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from frossl.core.device import device_environment, has_context, peak_bytes
from frossl.core.distributed import world_size

MMAP_MAX, TRIM_THRESHOLD = -4, -1
"""Options of glibc's ``mallopt``: most blocks mapped by themselves; free bytes from which on pages are given back."""


def machine() -> dict[str, str]:
    """Processor, cores that this process may use, accelerator if any, system, Python, and the commit of a checkout."""
    told = {
        "processor": processor(),
        "cores": str(len(available_cores())),
        "accelerator": torch.cuda.get_device_name() if has_context() else "",
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": commit(),
    }
    return {name: value for name, value in told.items() if value}


def available_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def speed_of(about: Mapping[str, str]) -> str:
    """What of :func:`machine` and :func:`environment` decides how fast it is, in words."""
    cores, threads = (f"{about.get(name, '?')} {name}" for name in ("cores", "threads"))
    return ", ".join([about.get("processor", "?"), cores, threads, *filter(None, [about.get("accelerator")])])


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


def shared_memory() -> float:
    """Free bytes in ``/dev/shm``, through which processes that decode images hand them over; infinite where it is not
    a file system.
    """
    try:
        found = os.statvfs("/dev/shm")
    except (AttributeError, OSError):
        return math.inf
    return found.f_bavail * found.f_frsize


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
