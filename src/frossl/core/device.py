"""What is done on an accelerator alone: copies that nobody waits for, streams, and the settings of its libraries.

The only file that knows of pinned memory and streams, so that tests can put a device in its place that is not there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Precision = Literal["auto", "64", "32", "tf32", "bf16", "fp16"]
HALF: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What autocast computes in, for the precisions that have it."""
TENSOR_CORES = (7, 0)
"""Least compute capability of cards whose float16 is faster than float32."""
RESIDENT = 0.25
"""Share of a device's free memory that the images of a data set may take."""


def pinned(x: Tensor) -> Tensor:
    """``x`` in memory that a device copies from while the processor goes on."""
    return x.pin_memory()


def upload(x: Tensor, device: torch.device | str) -> Tensor:
    """``x`` of the processor on ``device``; on CUDA without waiting for it."""
    device = torch.device(device)
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return pinned(x).to(device, non_blocking=True)


def fits(x: Tensor, device: torch.device) -> bool:
    """Whether ``x`` may stay on ``device`` beside what trains there; never on the processor, where it is already."""
    return device.type == "cuda" and x.nbytes <= RESIDENT * free_memory(device)


def free_memory(device: torch.device) -> float:
    """Bytes of a CUDA device that this process could still have."""
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)


@contextmanager
def fork_random(device: torch.device | str = "cpu") -> Iterator[None]:
    """Leaves torch's generators, that of the processor and that of ``device``, as they were."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def count(kind: str) -> int:
    """How many devices of this kind this machine has that torch can use."""
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    return int(torch.backends.mps.is_available()) if kind == "mps" else 1


def has_context() -> bool:
    """Whether this process computes on CUDA; to ask it the other way would open a context there."""
    return torch.cuda.is_available() and torch.cuda.is_initialized()


def auto_precision(device: torch.device) -> Precision:
    """bf16 where a CUDA card computes in it, else fp16 where that is fast, else 32."""
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp16" if torch.cuda.get_device_capability(device) >= TENSOR_CORES else "32"


def settle(device: torch.device, precision: str, deterministic: bool) -> None:
    """Sets what torch keeps for the whole process: TF32, and which algorithms may be chosen.

    ``deterministic`` refuses those that give other bits from run to run. Without it cuDNN tries several for each shape
    and takes the fastest.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = not deterministic
        torch.backends.cudnn.deterministic = deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is computed
    if deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(deterministic)


def device_environment() -> dict[str, str]:
    """What bit-identity depends on where this process computes on CUDA; nothing elsewhere."""
    if not has_context():
        return {}
    return {
        "device": torch.cuda.get_device_name(),
        "cudnn": str(torch.backends.cudnn.version()),
        "tf32": str(torch.backends.cudnn.allow_tf32),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
    }


def peak_bytes() -> int:
    """Most bytes that tensors had on the CUDA device since :func:`start_counting_memory`."""
    return torch.cuda.max_memory_allocated()


def start_counting_memory() -> None:
    """Forgets what was held before, such as copies that a measurement threw away."""
    if has_context():
        torch.cuda.reset_peak_memory_stats()


class SideStream:
    """Work that runs beside that of the main stream, where ``used``; else in its place."""

    def __init__(self, device: torch.device, used: bool) -> None:
        self.stream = torch.cuda.Stream(device) if used else None

    def run(self, work: Callable[[], T], made: Callable[[T], Iterable[Tensor]]) -> Callable[[], T]:
        """Does ``work`` here; what is given, called where its result is used, makes that place wait for it.

        ``made`` are the tensors of the result, whose memory must not be given away while the main stream reads them.
        """
        if self.stream is None:
            result = work()
            return lambda: result
        with torch.cuda.stream(self.stream):
            result = work()
            ready = self.stream.record_event()

        def received() -> T:
            here = torch.cuda.current_stream(self.stream.device)  # pyright: ignore[reportOptionalMemberAccess]
            here.wait_event(ready)
            for x in made(result):
                x.record_stream(here)
            return result

        return received
