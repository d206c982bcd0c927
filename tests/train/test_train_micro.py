"""Parts of a batch, one at a time, give the gradients of the whole batch."""

from __future__ import annotations

import json
from io import StringIO

import pytest
import torch
from rich.console import Console
from test_train_guard import TRAINED, narrow
from test_train_loop import config, folder_of_images

import frossl.train.memory as memory
from frossl.core.types import UserError
from frossl.data.loader import training_batches
from frossl.runs.data import load_run_data
from frossl.train.learner import Learner
from frossl.train.loop import build
from frossl.train.pretrain import pretrain
from frossl.train.ranks import start
from frossl.train.step import Stepper

pytestmark = pytest.mark.usefixtures("no_reports")


class Plain(torch.nn.Module):
    """An encoder without batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 5, 2), torch.nn.GELU(), torch.nn.Conv2d(8, 12, 3, 2), torch.nn.GroupNorm(3, 12)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).tanh().mean((2, 3))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return folder_of_images(tmp_path_factory.mktemp("images"))


def made(images, tmp_path, own, **changes) -> tuple[Stepper, list]:
    c = config(images, tmp_path, **{"batch": 12, "optimizer": "sgd", **changes})
    data = load_run_data(c)
    torch.manual_seed(1)
    own = own() if own else None
    learner, plan = build(c, data, own)
    take = Stepper(learner, plan, start(c))
    learner.train()
    batches = training_batches(data, plan.recipe, batch=plan.batch, seed=0)
    return take, [next(batches) for _ in range(2)]


def gradients(take: Stepper) -> dict[str, torch.Tensor | None]:
    return {name: p.grad for name, p in take.learner.named_parameters()}


@pytest.mark.parametrize(("micro", "precision"), [(5, "64"), (3, "64"), (3, "32")])
@pytest.mark.parametrize("method", TRAINED)
def test_without_batch_norm_in_the_encoder_the_step_is_that_of_the_whole_batch(
    images, tmp_path, method, micro, precision
):
    changes = {"method": method, "objective": narrow(method), "precision": precision, "views": 3}
    whole, batches = made(images, tmp_path, Plain, **changes)
    parts, _ = made(images, tmp_path, Plain, micro_batch=micro, **changes)
    wanted = whole(batches[0], 0, 0.5, 5.0)
    got = parts(batches[0], 0, 0.5, 5.0)
    tolerance = 1e-10 if precision == "64" else 2e-4
    torch.testing.assert_close(got["loss"], wanted["loss"], rtol=tolerance, atol=0)
    for name, gradient in gradients(whole).items():
        other = gradients(parts)[name]
        if gradient is None:
            assert other is None
            continue
        assert other is not None
        torch.testing.assert_close(other, gradient, rtol=tolerance, atol=tolerance * float(gradient.abs().max()))
    after = everything_of(parts)
    for name, value in everything_of(whole).items():
        torch.testing.assert_close(after[name], value, rtol=tolerance, atol=tolerance)


def everything_of(take: Stepper) -> dict[str, torch.Tensor]:
    return {k: v.double() for k, v in take.learner.state_dict().items()}


@pytest.mark.parametrize("batch_norm", ["joint", "per_view"])
def test_batch_norms_see_a_part_and_count_it_once(images, tmp_path, batch_norm):
    """With statistics of a part, the gradient is that of the whole batch's loss of features made part by part."""
    changes = {"precision": "64", "batch_norm": batch_norm}
    take, batches = made(images, tmp_path, None, micro_batch=4, **changes)
    other, _ = made(images, tmp_path, None, **changes)
    take(batches[0], 0, 0.5, 5.0)
    learner, batch = other.learner, batches[0]
    h_VNF = torch.cat([learner.encode(learner.backbone, x.double()) for x in batch.views[0].split(4, 1)], 1)
    loss = learner.objective(h_VNF, None, 0.5, 5.0, None)
    loss.total.backward()
    for (name, got), (_, wanted) in zip(take.learner.named_parameters(), learner.named_parameters(), strict=True):
        assert got.grad is not None
        assert wanted.grad is not None
        torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-9, atol=1e-10, msg=name)
    for (name, got), (_, wanted) in zip(take.learner.named_buffers(), learner.named_buffers(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-10, msg=name)


class Dropping(Plain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(super().forward(x), 0.5)


def test_dropout_is_the_same_in_both_passes(images, tmp_path):
    """Else the gradient would belong to other features than the loss; a finite difference would tell."""
    changes = {"precision": "64", "micro_batch": 4, "lr": 1e-3}
    take, batches = made(images, tmp_path, Dropping, **changes)
    before = take(batches[0], 0, 0.5, 5.0)
    gradient = take.learner.backbone.layers[0].weight.grad.clone()
    other, _ = made(images, tmp_path, Dropping, **changes)
    step = 1e-6
    with torch.no_grad():
        other.learner.backbone.layers[0].weight.add_(gradient / gradient.norm(), alpha=step)
    after = other(batches[0], 0, 0.5, 5.0)
    assert float(after["loss"] - before["loss"]) / step == pytest.approx(float(gradient.norm()), rel=1e-4)


@pytest.mark.parametrize("micro", [None, 4])
def test_recomputed_activations_change_nothing(images, tmp_path, micro):
    """timm's checkpointed stages run twice, and batch norms count once."""
    changes = {"precision": "64", "micro_batch": micro}
    results = []
    for recompute in (False, True):
        take, batches = made(images, tmp_path, None, activation_checkpointing=recompute, **changes)
        take(batches[0], 0, 0.5, 5.0)
        take(batches[1], 1, 0.5, 5.0)
        results.append(everything_of(take))
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-10, atol=1e-12, msg=name)


def test_an_encoder_that_cannot_recompute_says_so(images, tmp_path):
    with pytest.raises(UserError, match="no set_grad_checkpointing"):
        pretrain(config(images, tmp_path, activation_checkpointing=True), backbone=Plain())


def test_a_run_in_parts_is_killed_and_resumed_like_any_other(images, tmp_path, monkeypatch):
    from test_train_loop import killed_at, losses, same_weights

    from frossl.runs.directory import read_run

    changes = {"micro_batch": 3, "batch": 8}
    whole = pretrain(config(images, tmp_path, name="whole", **changes)).run
    killed = killed_at(monkeypatch, 9, config(images, tmp_path, name="killed", checkpoint_every="7it", **changes))
    pretrain(read_run(killed)[0], resume=killed)
    assert losses(killed) == losses(whole)
    assert same_weights(killed, whole)


def planned(images, tmp_path, monkeypatch, free: float, own=Plain, **changes) -> tuple[str, dict]:
    """What a run says, and its saved configuration, on a machine with ``free`` bytes."""
    said = StringIO()
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    c = config(images, tmp_path, length="2it", **changes)
    run = pretrain(c, backbone=own and own(), console=Console(file=said, width=200)).run
    return said.getvalue(), json.loads((run / "config.json").read_text())["config"]


def test_the_plan_says_what_fits_and_takes_parts_where_the_batch_does_not(images, tmp_path, monkeypatch):
    said, saved = planned(images, tmp_path, monkeypatch, 8 * 2**30, name="large")
    assert "of 8 GiB free" in said
    assert saved["micro_batch"] is None
    said, saved = planned(images, tmp_path, monkeypatch, 1e3, name="small")
    assert "batch of 8 does" in said
    assert saved["micro_batch"] == 1
    said, saved = planned(images, tmp_path, monkeypatch, 1e3, name="asked", micro_batch=4)
    assert "does not fit" not in said
    assert saved["micro_batch"] == 4


def test_a_batch_norm_is_never_given_parts_without_being_asked(images, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"--micro-batch 1\).*batch norms"):
        planned(images, tmp_path, monkeypatch, 1e3, own=None, name="r")
    assert not (tmp_path / "r").exists()
    _, saved = planned(images, tmp_path, monkeypatch, 1e3, own=None, name="asked", micro_batch=4)
    assert saved["micro_batch"] == 4


@pytest.mark.parametrize("times", [1, 2])
def test_out_of_memory_falls_back_once(images, tmp_path, monkeypatch, times):
    objective, left = Learner.objective, [times]

    def short(self, *rest):
        if left[0]:
            left[0] -= 1
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"
            )
        return objective(self, *rest)

    monkeypatch.setattr(Learner, "objective", short)
    if times == 2:
        with pytest.raises(UserError, match=r"memory.*--micro-batch"):
            planned(images, tmp_path, monkeypatch, 8 * 2**30)
        return
    said, saved = planned(images, tmp_path, monkeypatch, 8 * 2**30)
    assert "encoding 4 images" in said
    assert saved["micro_batch"] == 4


def test_out_of_memory_in_mid_run_saves_what_was_learned(images, tmp_path, monkeypatch):
    from test_train_loop import losses, same_weights

    from frossl.runs.checkpoint import load_checkpoint, newest_checkpoint
    from frossl.runs.directory import read_run

    whole = pretrain(config(images, tmp_path, name="whole")).run
    objective = Learner.objective

    def short(self, h_VNF, target_VNF, share, *rest):
        if share == 5 / 12:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 byte")
        return objective(self, h_VNF, target_VNF, share, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "objective", short)
        with pytest.raises(UserError, match=r"CUDA out of memory.*--micro-batch"):
            pretrain(config(images, tmp_path, name="r"))
    assert load_checkpoint(newest_checkpoint(tmp_path / "r"))["step"] == 5
    pretrain(read_run(tmp_path / "r")[0], resume=tmp_path / "r")
    assert losses(tmp_path / "r") == losses(whole)
    assert same_weights(tmp_path / "r", whole)


def test_memory_in_control_groups_and_of_the_machine(tmp_path):
    assert 0 < memory.free_bytes(torch.device("cpu")) < 2**50
    assert memory.free_bytes(torch.device("mps")) == float("inf")
