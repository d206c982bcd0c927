"""Signals that stop a run, and those that do not."""

from __future__ import annotations

import os
import signal

import pytest

from frossl.train import signals
from frossl.train.signals import STOPS, stop_signals


@pytest.fixture(autouse=True)
def as_in_a_terminal():
    """Handlers as a shell gives them: what it starts in the background ignores some signals."""
    kept = {n: signal.signal(n, signal.SIG_DFL) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)}
    kept[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for n, handler in kept.items():
        signal.signal(n, handler)


@pytest.mark.parametrize("name", STOPS)
def test_the_first_is_noted_and_handlers_come_back(name):
    before = signal.getsignal(getattr(signal, name))
    with stop_signals() as received:
        os.kill(os.getpid(), getattr(signal, name))
        assert received == [name]
    assert signal.getsignal(getattr(signal, name)) == before


def test_what_nohup_ignores_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_signals() as received:
        os.kill(os.getpid(), signal.SIGHUP)
        assert received == []
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_what_an_agent_passes_on_is_not_a_second_request(monkeypatch):
    monkeypatch.setattr(signals, "world_size", lambda: 2)
    with stop_signals() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == ["SIGTERM"]
        monkeypatch.setattr(signals, "REPEATS", -1.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
