"""How long training that has just begun will take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")
WARM_UP, TIMED = 2, 5
"""Steps that are not timed, as the first are slow, and steps that are."""


def timed(batches: Iterable[T], steps: int, device: torch.device, tell: Callable[[str], object]) -> Iterator[T]:
    """Hands ``batches`` on; once a few steps are done, ``tell`` is told how many minutes ``steps`` of them take."""
    start = 0.0
    for step, batch in enumerate(batches):
        if step in (WARM_UP, WARM_UP + TIMED):
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            now = time.perf_counter()
            if step > WARM_UP:
                tell(f"about {math.ceil((now - start) / TIMED * steps / 60)} min")
            start = now
        yield batch
