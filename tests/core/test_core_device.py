"""What is done on accelerators alone, as far as it shows without one."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest
import torch

from fake_cuda import DEVICE, fake_cuda
from frossl.core import device
from frossl.core.types import UserError
from frossl.runs.checkpoint import random_state, set_random_state
from frossl.runs.config import Config
from frossl.train.resources import find_precision

CPU = torch.device("cpu")


def test_what_goes_to_a_device_goes_through_pinned_memory():
    with fake_cuda() as counts:
        assert device.upload(torch.zeros(3), DEVICE).device == DEVICE
        assert (counts.copies, dict(counts.waits)) == (1, {})
        torch.zeros(3).to(DEVICE, non_blocking=True)  # from memory that the device cannot read by itself
        assert sum(counts.waits.values()) == 1
    x = torch.zeros(3)
    assert device.upload(x, CPU) is x


@pytest.mark.parametrize(("free", "stay"), [(1000.0, False), (4000.0, True)])
def test_images_stay_on_a_device_that_has_room(monkeypatch, free, stay):
    monkeypatch.setattr(device, "free_memory", lambda d: free)
    assert device.fits(torch.zeros(1000, dtype=torch.uint8), DEVICE) == stay
    assert not device.fits(torch.zeros(1), CPU)


@pytest.mark.parametrize(
    ("bf16", "capability", "chosen"), [(True, (8, 0), "bf16"), (False, (7, 5), "fp16"), (False, (6, 1), "32")]
)
def test_precision_is_chosen_by_the_card(monkeypatch, bf16, capability, chosen):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d: capability)
    assert find_precision("auto", DEVICE) == chosen
    assert find_precision("fp16", DEVICE) == "fp16"


def test_tf32_is_refused_where_there_is_none():
    assert find_precision("tf32", DEVICE) == "tf32"
    with pytest.raises(UserError, match="--precision tf32: only NVIDIA cards"):
        find_precision("tf32", CPU)
    assert Config(data="x", precision="tf32").precision == "tf32"


@pytest.fixture
def settings(monkeypatch):
    """torch's settings for the process, put back afterwards."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("precision", ["32", "tf32"])
def test_a_device_is_set_as_asked_for(precision, deterministic):
    device.settle(DEVICE, precision, deterministic)
    cudnn = torch.backends.cudnn
    assert (cudnn.deterministic, cudnn.benchmark) == (deterministic, not deterministic)
    assert cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == deterministic


def test_a_run_on_the_cpu_opens_no_context_on_a_gpu(monkeypatch):
    """Each of these would ask the driver, and hold some hundred MB of every GPU there is."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    state = random_state()
    assert "cuda" not in state
    set_random_state(state)
    with device.fork_random():
        torch.rand(1)
    device.start_counting_memory()
    assert device.device_environment() == {}
    assert not torch.cuda.is_initialized()


def test_random_numbers_are_drawn_aside():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with device.fork_random(CPU):
        torch.rand(5)
    assert torch.equal(torch.rand(2), expected)


def test_a_stream_of_its_own_is_waited_for_where_its_result_is_used(monkeypatch):
    done = []

    class Stream:
        def __init__(self, device):
            self.device = device

        def record_event(self):
            done.append("recorded")
            return "event"

        def wait_event(self, event):
            done.append(f"waited for {event}")

    class Made:
        def record_stream(self, stream):
            done.append("kept")

    @contextmanager
    def inside(stream):
        done.append("in the stream")
        yield

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    side = device.SideStream(DEVICE, used=True)
    received = side.run(lambda: done.append("worked") or "result", lambda result: [Made()])
    assert done == ["in the stream", "worked", "recorded"]
    assert received() == "result"
    assert done[3:] == ["waited for event", "kept"]
    assert device.SideStream(DEVICE, used=False).run(lambda: 1, lambda result: [])() == 1
