"""What of the machine a run uses: device, precision, and processes that decode."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from frossl.core.device import Precision, auto_precision, count
from frossl.core.launch import cores, launched
from frossl.core.machine import shared_memory
from frossl.core.types import UserError
from frossl.data import Dataset
from frossl.methods import find_method
from frossl.runs.config import Config

MOST_WORKERS, AHEAD = 16, 2
"""Processes of a rank that decode images, unless more are asked for; batches that each holds ready."""


def workers_for(config: Config, data: Dataset, batch: int = 0) -> int:
    """Processes of this rank that decode images: one per core, if not given, as far as half of the shared memory holds
    their batches of so many bytes.
    """
    if data.train.in_memory:
        return 0
    if config.workers is not None:
        return config.workers
    room = shared_memory() / 2 / launched().local_ranks / (AHEAD * batch) if batch else math.inf
    return max(1, int(min(cores(), MOST_WORKERS, room)))


def device_of(config: Config) -> torch.device:
    """Where this rank computes; ``auto`` is the fastest kind there is that can do it, as MPS has no float64.

    Raises:
        UserError: this machine has no such device, or ``--device mps`` was asked for with float64.
    """
    have = [kind for kind in ("cuda", "mps", "cpu") if count(kind)]
    float64 = find_method(config.method).float64 or config.precision == "64"
    fits = [kind for kind in have if kind != "mps" or not float64]
    name = fits[0] if config.device == "auto" else config.device
    if name not in have:
        raise UserError(f"--device {name}: this machine has none that PyTorch can use (it has {', '.join(have)})")
    if name not in fits:
        raise UserError(f"--device mps has no float64, which this run needs ({config.method}); give --device cpu")
    return torch.device(name, _own_gpu()) if name == "cuda" else torch.device(name)


def _own_gpu() -> int:
    """The GPU of this rank among those that it sees; a scheduler may show each rank its own alone.

    Raises:
        UserError: there are fewer than ranks.
    """
    here, seen = launched(), torch.cuda.device_count()
    if here.local_rank < seen:
        return here.local_rank
    if here.slurm and seen == 1:
        return 0
    raise UserError(
        f"{here.local_ranks} ranks on this machine, but {seen} GPU{'s' * (seen != 1)}: rank {here.rank} has none. "
        f"Start {seen}, or give --device cpu"
    )


def find_precision(name: Precision, device: torch.device) -> Precision:
    """``name`` with ``auto`` decided: bf16 where the hardware computes in it, or fp16 where it is fast in that alone.

    Raises:
        UserError: the device has no such precision.
    """
    if name == "tf32" and device.type != "cuda":
        raise UserError(f"--precision tf32: only NVIDIA cards have it, and this run computes on {device}; give 32")
    if name != "auto":
        return name
    if device.type == "cuda":
        return auto_precision(device)
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "32"


def cpu_has_bf16() -> bool:
    """Whether bf16 products run in hardware; without that they are slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
