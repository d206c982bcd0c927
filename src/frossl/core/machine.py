"""The machine of a run: processor, memory, versions."""

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
"""Options of glibc's ``mallopt``: the number of mapped blocks; free bytes above which memory is returned."""


def machine() -> dict[str, str]:
    """Processor, cores that this process may use, accelerator if any, system, Python, and the commit of a checkout."""
    facts = {
        "processor": processor(),
        "cores": str(len(available_cores())),
        "accelerator": torch.cuda.get_device_name() if has_context() else "",
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": commit(),
    }
    return {name: value for name, value in facts.items() if value}


def available_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def speed_of(about: Mapping[str, str]) -> str:
    """A description of what decides the speed, from :func:`machine` and :func:`environment`."""
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
    """Peak memory of this process in bytes, or of its tensors if ``device`` is CUDA; None if unknown."""
    if device == "cuda":
        return peak_bytes()
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), None)


def shared_memory() -> float:
    """Free bytes in ``/dev/shm``, which decoding processes use; infinite where it is no file system."""
    try:
        found = os.statvfs("/dev/shm")
    except (AttributeError, OSError):
        return math.inf
    return found.f_bavail * found.f_frsize


def has_compiler() -> bool:
    """Whether the compiler exists that torch.compile needs on the CPU."""
    usual = "clang++" if sys.platform == "darwin" else "g++"
    return sys.platform != "win32" and shutil.which(os.environ.get("CXX", usual)) is not None


def keep_freed_pages() -> None:
    """Makes glibc's allocator keep freed memory for the next step.

    By default it maps tensors of 32 MiB and more anew at each step, and the system zeroes their pages.
    """
    if platform.libc_ver()[0] == "glibc":
        allocator = ctypes.CDLL(None)
        for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1)):
            allocator.mallopt(option, value)


def commit() -> str:
    """Hash of the commit of this package, marked if files were changed since; empty if it is no checkout."""
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
        "views": "uint8",  # the type in which crops are resampled on the CPU
        "ranks": str(world_size()),
        **device_environment(),
    }
