"""Training in float16: the loss is scaled, an overflow costs a step, and a NaN that is none still ends the run."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_train_guard import everything, images, made, same  # noqa: F401  (a fixture)
from test_train_loop import config
from torch import nn

from frossl.runs.checkpoint import load_newest
from frossl.runs.log import read_rows
from frossl.train import scaling
from frossl.train.pretrain import pretrain
from frossl.train.scaling import LEAST, MOST, START, LossScale
from frossl.train.step import NonFiniteError

pytestmark = pytest.mark.usefixtures("no_reports")


SCALE = 256.0
"""At which the gradients of these small networks fit in float16; at the scale that runs start with some do not."""


def overflowing(take, above: float):
    """A gradient that is infinite while the loss is scaled by more than ``above``."""
    weight = take.learner.backbone.conv1.weight
    return weight.register_hook(lambda g: torch.where(take.scale.state[0] > above, g * torch.inf, g)).remove


@pytest.mark.parametrize(
    "changes", [{}, {"micro_batch": 4}, {"method": "byol"}, {"method": "vicreg", "optimizer": "lars"}]
)
def test_an_overflow_leaves_the_step_out_and_lowers_the_scale(images, tmp_path, changes):  # noqa: F811
    take, batches = made(images, tmp_path, **{"precision": "fp16", **changes})
    take.scale.state[0] = SCALE
    take(batches[0], 0, 0.5, 5.0)
    assert float(take.scale.state[0]) == SCALE
    before = everything(take)
    end = overflowing(take, SCALE / 4)
    for step in (1, 2):
        row = take(batches[step], step, 0.5, 5.0)
        assert same(before, everything(take))
        assert not bool(row["grad_norm"].isfinite())
        assert float(row["loss_scale"]) == SCALE / 2**step
    assert float(take(batches[3], 3, 0.5, 5.0)["grad_norm"]) > 0
    end()
    take.check()
    assert not same(before, everything(take))


def test_a_nan_that_is_no_overflow_ends_the_run(images, tmp_path):  # noqa: F811
    take, batches = made(images, tmp_path, precision="fp16")
    take.scale.state[0] = 2 * LEAST
    take(batches[0], 0, 0.5, 5.0)
    before = everything(take)
    overflowing(take, 0.0)
    take(batches[1], 1, 0.5, 5.0)
    take.check()
    for step in (2, 3):
        take(batches[step], step, 0.5, 5.0)
    assert same(before, everything(take))
    with pytest.raises(NonFiniteError, match="step 2: the gradient of"):
        take.check()


def test_a_loss_that_is_not_finite_ends_the_run_at_once(images, tmp_path):  # noqa: F811
    take, batches = made(images, tmp_path, precision="fp16")
    batches[0].views[0][1, 3, 0, 2, 2] = torch.nan
    take(batches[0], 0, 0.5, 5.0)
    with pytest.raises(NonFiniteError, match="step 0: "):
        take.check()


def test_gradients_are_those_of_the_loss(images, tmp_path):  # noqa: F811
    gradients = {}
    for precision in ("32", "fp16"):
        take, batches = made(images, tmp_path, precision=precision)
        if take.scale is not None:
            take.scale.state[0] = SCALE
        take(batches[0], 0, 0.5, 5.0)
        gradients[precision] = torch.cat([p.grad.flatten() for p in take.learner.parameters()])
    off = (gradients["fp16"] - gradients["32"]).norm() / gradients["32"].norm()
    assert off < 0.02


def test_the_scale_grows_after_many_steps_and_stays_in_range(monkeypatch):
    monkeypatch.setattr(scaling, "GROW_EVERY", 3)
    scale, fine, infinite = LossScale(torch.device("cpu")), torch.tensor(1.0), torch.tensor(torch.inf)
    for norm, expected in ((fine, 1), (fine, 1), (fine, 2), (infinite, 1), (fine, 1), (fine, 1), (fine, 2)):
        assert bool(scale.overflow(fine, norm)) == bool(norm.isinf())
        assert float(scale.state[0]) == expected * START
    for _ in range(100):
        scale.overflow(fine, fine)
    assert float(scale.state[0]) == MOST
    p = nn.Parameter(torch.ones(3))
    scale.scaled((2 * p).sum()).backward()
    scale.unscale([p])
    assert torch.equal(p.grad, torch.full((3,), 2.0))


def test_a_run_goes_on_with_its_scale(images, tmp_path):  # noqa: F811
    whole = pretrain(config(images, tmp_path, precision="fp16", length="6it", name="whole"))
    stopped = config(images, tmp_path, precision="fp16", length="3it", name="part")
    part = pretrain(stopped)
    scales = [row["loss_scale"] for row in read_rows(whole.run / "metrics.jsonl") if row["kind"] == "train"]
    assert len(scales) == 6
    again = pretrain(dataclasses.replace(stopped, length="6it"), resume=part.run)
    ends = [load_newest(each.run, print)[1]["loss_scale"].tolist() for each in (whole, again)]
    assert ends[0] == ends[1]
    assert ends[0][1] > 0
