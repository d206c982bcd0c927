"""Networks compiled where they stand: their names, weights and checkpoints stay as they are."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from frossl.core.machine import has_compiler
from frossl.core.types import UserError

BACKEND = "inductor"


def compile_networks(networks: Iterable[nn.Module], device: torch.device, precision: str) -> None:
    """Has torch compile each of ``networks`` at its first call for each shape.

    Raises:
        UserError: on the CPU, without a C++ compiler or in bf16, where some convolutions need hooks that would be lost.
    """
    if device.type == "cpu" and not has_compiler():
        raise UserError(
            "--compile needs a C++ compiler, and neither $CXX nor g++ (on macOS clang++) is there. Install one, or "
            "leave the flag out"
        )
    if device.type == "cpu" and precision == "bf16":
        raise UserError("--compile on the CPU: some convolutions are wrong in bf16 then; give --precision 32")
    for network in networks:
        network.compile(backend=BACKEND)
