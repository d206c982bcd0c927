"""Copies, streams and library settings of accelerators.

The only file that uses pinned memory and streams, so that tests can replace it by a fake device.
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
"""The type of autocast, for the precisions with it."""
TENSOR_CORES = (7, 0)
"""Least compute capability of cards whose float16 is faster than float32."""
RESIDENT = 0.25
"""Fraction of a device's free memory that the images of a data set may take."""


def pinned(x: Tensor) -> Tensor:
    """``x`` in pinned memory, from which copies are asynchronous."""
    return x.pin_memory()


def upload(x: Tensor, device: torch.device | str) -> Tensor:
    """Copies ``x`` to ``device``; from the CPU to CUDA asynchronously."""
    device = torch.device(device)
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return pinned(x).to(device, non_blocking=True)


def fits(x: Tensor, device: torch.device) -> bool:
    """Whether ``x`` may be kept on ``device`` during training; False on a CPU."""
    return device.type == "cuda" and x.nbytes <= RESIDENT * free_memory(device)


def free_memory(device: torch.device) -> float:
    """Bytes that this process can still allocate on a CUDA device."""
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)


@contextmanager
def fork_random(device: torch.device | str = "cpu") -> Iterator[None]:
    """Restores torch's generators of the CPU and of ``device`` at exit."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def count(kind: str) -> int:
    """The number of devices of this kind that torch can use."""
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    return int(torch.backends.mps.is_available()) if kind == "mps" else 1


def has_context() -> bool:
    """Whether this process has a CUDA context, without creating one."""
    return torch.cuda.is_available() and torch.cuda.is_initialized()


def auto_precision(device: torch.device) -> Precision:
    """bf16 if a CUDA card computes in it, else fp16 if that is fast, else 32."""
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp16" if torch.cuda.get_device_capability(device) >= TENSOR_CORES else "32"


def settle(device: torch.device, precision: str, deterministic: bool) -> None:
    """Sets torch's global options: TF32, and deterministic algorithms or cuDNN's benchmark of the fastest ones."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = not deterministic
        torch.backends.cudnn.deterministic = deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is computed
    if deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(deterministic)


def device_environment() -> dict[str, str]:
    """What bit-identity depends on if this process computes on CUDA; empty elsewhere."""
    if not has_context():
        return {}
    return {
        "device": torch.cuda.get_device_name(),
        "cudnn": str(torch.backends.cudnn.version()),
        "tf32": str(torch.backends.cudnn.allow_tf32),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
    }


def peak_bytes() -> int:
    """Peak bytes of tensors on the CUDA device since :func:`start_counting_memory`."""
    return torch.cuda.max_memory_allocated()


def start_counting_memory() -> None:
    """Resets the peak of :func:`peak_bytes`."""
    if has_context():
        torch.cuda.reset_peak_memory_stats()


class SideStream:
    """A CUDA stream beside the main one; if not ``used``, work runs on the main stream."""

    def __init__(self, device: torch.device, used: bool) -> None:
        self.stream = torch.cuda.Stream(device) if used else None

    def run(self, work: Callable[[], T], made: Callable[[T], Iterable[Tensor]]) -> Callable[[], T]:
        """Runs ``work`` on this stream; returns a function that makes the current stream wait and returns the result.

        ``made`` lists the tensors of the result, whose memory the allocator must not reuse while they are read.
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
