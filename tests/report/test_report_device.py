"""A report takes features where the run was trained, if that is here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from frossl.commands.bench import noise
from frossl.report import run_summary


@pytest.mark.parametrize(
    ("recorded", "devices", "device", "half"),
    [
        ("cpu", 0, "cpu", torch.bfloat16),
        ("cuda:3", 8, "cuda:3", torch.bfloat16),
        ("cuda:3", 1, "cuda", torch.bfloat16),
        ("cuda:3", 0, "cpu", None),
    ],
)
def test_no_device_is_asked_for_that_is_not_here(monkeypatch, recorded, devices, device, half):
    monkeypatch.setattr(run_summary, "count", lambda kind: devices if kind == "cuda" else 1)
    record = SimpleNamespace(about={"device": recorded, "precision": "bf16"})
    extractor = run_summary._extractor(record, noise(4, 8))
    assert (str(extractor.device), extractor.half) == (device, half)
