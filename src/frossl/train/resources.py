"""Device, precision and number of decoding processes of a run."""

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

MAX_WORKERS, PREFETCHED = 16, 2
"""Most processes of a rank that decode images by default; batches that each holds ready."""


def workers_for(config: Config, data: Dataset, batch: int = 0) -> int:
    """Processes of this rank that decode images: by default one per core, if their batches of ``batch`` bytes fit in
    half of the shared memory.
    """
    if data.train.in_memory:
        return 0
    if config.workers is not None:
        return config.workers
    room = shared_memory() / 2 / launched().local_ranks / (PREFETCHED * batch) if batch else math.inf
    return max(1, int(min(cores(), MAX_WORKERS, room)))


def device_of(config: Config) -> torch.device:
    """The device of this rank; ``auto`` is CUDA, MPS or the CPU, whichever is there first and has the types of the run.

    Raises:
        UserError: this machine has no such device, or it is MPS and the run needs float64.
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
    """The GPU of this rank among those that it sees, which with SLURM may be its own alone.

    Raises:
        UserError: there are fewer GPUs than ranks.
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
    """Resolves ``auto``: bf16 if the hardware computes in it, else fp16 if only that is fast, else 32.

    Raises:
        UserError: the device does not have the precision.
    """
    if name == "tf32" and device.type != "cuda":
        raise UserError(f"--precision tf32: only NVIDIA cards have it, and this run computes on {device}; give 32")
    if name != "auto":
        return name
    if device.type == "cuda":
        return auto_precision(device)
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "32"


def cpu_has_bf16() -> bool:
    """Whether bf16 products run in hardware; in software they are slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
