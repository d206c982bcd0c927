"""A training step on a CUDA device that is not there: what it would make the processor wait for, and its kernels."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch
import torch.distributed as dist
from test_train_guard import TRAINED, narrow
from torch.testing._internal.distributed.fake_pg import FakeStore

from fake_cuda import DEVICE, READ, Fabric, fake_cuda
from frossl.commands.bench import noise
from frossl.data import from_tensors
from frossl.data.loader import Batch
from frossl.data.types import Dataset, Split
from frossl.methods import METHODS
from frossl.runs.config import Config
from frossl.train.loop import build
from frossl.train.probe import OnlineProbe
from frossl.train.step import Stepper
from frossl.train.telemetry import Telemetry, context_of

KERNELS = 700
"""Most kernels of a step of a ResNet of four blocks with its heads."""
WAITING = {name for name in TRAINED if METHODS[name].eigenvalues}
"""Methods that take eigenvalues, which torch waits for."""


def data_of(labels: bool) -> Dataset:
    data = noise(64, 32)
    return data if labels else from_tensors(*(Split(s.images) for s in (data.train, data.test)), name="noise")


def stepped(
    method: str, labels: bool = True, precision: str = "bf16", warm_up: bool = False, batch: int = 16, **changes
):
    """What a step of ``method`` costs, at which nothing of telemetry is due, and its scalars.

    The first, which also makes what an optimiser keeps, or the one after ``warm_up``.
    """
    data = data_of(labels)
    config = Config(
        data="noise",
        method=method,
        objective=narrow(method),
        backbone_options='{"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}',
        precision=precision,
        batch=batch,
        device="cpu",
        **changes,
    )
    learner, plan = build(config, data)
    plan = dataclasses.replace(plan, device=DEVICE)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    with fake_cuda() as counts:
        probe = OnlineProbe(plan.spec.features, len(data.classes)).to(DEVICE) if data.classes else None
        stepper = Stepper(learner, plan, Fabric(dtype), probe)
        telemetry = Telemetry(learner.method, context_of(plan), 500)
        learner.train()
        views = [torch.rand(g.count, 16, 3, g.size, g.size, device=DEVICE, dtype=plan.view_dtype) for g in plan.recipe]
        labels_N = torch.zeros(16, dtype=torch.int64, device=DEVICE) if labels else None
        batch = Batch(torch.arange(16), labels_N, views)
        if warm_up:
            stepper(batch, 2, 0.0, 0.0, telemetry.observe)
        counts.clear()
        scalars = stepper(batch, 3, 0.1, 0.1, telemetry.observe)
    return counts, scalars


@pytest.mark.parametrize("method", TRAINED)
def test_a_step_waits_for_nothing(method):
    counts, scalars = stepped(method)
    assert {kind for kind, _ in counts.waits} == ({READ} if method in WAITING else set()), counts.waits
    assert counts.row()["kernels"] <= KERNELS
    assert {value.device for value in scalars.values()} == {DEVICE}
    assert "probe_on_views" in scalars


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "lars"},
        {"optimizer": "lars-original", "method": "byol"},
        {"labels": False},
        {"labels": False, "method": "byol"},
        {"precision": "fp16"},
        {"precision": "32", "clip": 1.0, "micro_batch": 8},
    ],
    ids=str,
)
def test_nor_does_one_of_another_kind(changes):
    counts, scalars = stepped(**{"method": "frossl", **changes})
    assert not counts.waits
    assert counts.row()["kernels"] <= KERNELS * (2 if "micro_batch" in changes else 1)
    assert ("probe_on_views" in scalars) == changes.get("labels", True)
    assert ("loss_scale" in scalars) == (changes.get("precision") == "fp16")


@pytest.mark.parametrize("method", TRAINED)
def test_nor_does_one_of_two_ranks(method):
    with ranks_that_answer_nothing(2):
        counts, _ = stepped(method, batch=32)
    assert {kind for kind, _ in counts.waits} == ({READ} if method in WAITING else set()), counts.waits


@contextlib.contextmanager
def ranks_that_answer_nothing(ranks: int):
    """A process group whose collectives return at once; what they give is not looked at by tests that count."""
    dist.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "broadcast", lambda x, src, group: None)  # torch's asks the driver, which is not there
        yield
    dist.destroy_process_group()
