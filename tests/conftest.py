"""Settings of every test: one thread, and property tests that draw the same examples each time."""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from frossl.cli import main
from frossl.report.page import write_report

torch.set_num_threads(1)
# Autograd starts a thread for each device that torch knows of at the first backward, and ranks cannot be forked after
# that. Tests with tensors of a CUDA device that is not there, and torch.compile, make one known: be first.
torch.ones((), requires_grad=True).backward()
settings.register_profile("house", deadline=None, derandomize=True)
settings.register_profile("long", settings.get_profile("house"), max_examples=500)
settings.load_profile("house")

# An oracle is named after what it restates; collected for doctests it would be imported as the package "frossl".
collect_ignore = ["oracles"]


@pytest.fixture
def frossl(tmp_path, monkeypatch, capsys):
    """Runs a command in ``tmp_path``; gives its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*argv: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in argv])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), re.sub(r"\s+", " ", printed.out + printed.err).strip()

    return run


@pytest.fixture
def fresh_memory_is_nan() -> Iterator[None]:
    """What reads memory that nobody wrote gets NaN, in bf16 and in float32, where glibc is the allocator."""
    perturb = -6
    set_option = ctypes.CDLL(None).mallopt if platform.libc_ver()[0] == "glibc" else lambda *_: None
    set_option(perturb, 0x100)  # fresh memory gets the lower byte of its complement
    yield
    set_option(perturb, 0)


@pytest.fixture(scope="module")
def no_reports():
    """Runs of the module end without a report, which takes longer than they do; ``reports`` gives it back to a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("frossl.train.pretrain.write_report", lambda runs, output, **_: output)
        yield


@pytest.fixture
def reports(monkeypatch):
    monkeypatch.setattr("frossl.train.pretrain.write_report", write_report)


@pytest.fixture(scope="module")
def two_penalties():
    """Fewer fits of linear probes, for time; what is chosen among six is tested beside the probes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["frossl.evals.linear"], "PENALTIES", (1e-1, 1e-3))
        yield
