"""Requests to stop a run, which is then saved first."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any

from frossl.core.distributed import world_size

REPEATS = 10.0
STOPS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
"""Ctrl-C; the end of a job; the end of a terminal; a warning that a job's time is nearly up."""


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Yields a list that receives the name of the first of :data:`STOPS`; a second signal has its usual effect.

    With several ranks a second one counts after :data:`REPEATS` seconds only, as torchrun repeats signals. Signals that
    were ignored before, as SIGHUP under nohup, still are.
    """
    received: list[str] = []
    first = 0.0

    def receive(number: int, frame: Any) -> None:
        nonlocal first
        if not received:
            received.append(signal.Signals(number).name)
            first = time.monotonic()
        elif world_size() == 1 or time.monotonic() - first > REPEATS:
            restore()
            signal.raise_signal(number)

    def restore() -> None:
        for n, handler in before.items():
            signal.signal(n, handler)

    known = [getattr(signal, name) for name in STOPS if hasattr(signal, name)]
    taken = known if current_thread() is main_thread() else ()  # other threads get no signals
    before = {n: signal.signal(n, receive) for n in taken if signal.getsignal(n) != signal.SIG_IGN}
    try:
        yield received
    finally:
        restore()
