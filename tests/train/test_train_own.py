"""Encoders that come as modules: which of them train, and which parts of them."""

from __future__ import annotations

from io import StringIO

import pytest
import torch
from rich.console import Console
from test_train_loop import config, folder_of_images
from torch import nn

from frossl.core.types import UserError
from frossl.methods import find_method
from frossl.nn.encoder import read_encoder
from frossl.train.evaluate import evaluate_run
from frossl.train.pretrain import pretrain


class Net(nn.Module):
    """Two convolutions with batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(8, 12, 3, 2), nn.BatchNorm2d(12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.stem(x)).relu().mean((2, 3))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return folder_of_images(tmp_path_factory.mktemp("images"))


def settings(method: str, **changes) -> dict:
    heads = {} if method == "random" else {"projector": "16-relu-16"}
    return {"method": method, "objective": find_method(method).Config(**heads)} | changes


@pytest.mark.parametrize(
    "changes",
    [settings("frossl"), settings("frossl", micro_batch=3), settings("mocov2plus"), settings("random")],
    ids=["frossl", "in parts", "averaged network", "untrained"],
)
def test_batch_norms_that_came_in_eval_mode_stay_in_it(images, tmp_path, changes):
    mine = Net()
    mine.stem.eval()
    asked = config(images, tmp_path, name="r", length="4it", monitor_every="1it", telemetry_every=1, **changes)
    run = pretrain(asked, backbone=mine).run
    state, _ = read_encoder(run / "encoder.safetensors")
    assert torch.equal(state["stem.1.running_mean"], torch.zeros(8))
    assert torch.equal(state["stem.1.running_var"], torch.ones(8))
    assert int(state["stem.1.num_batches_tracked"]) == 0
    assert not torch.equal(state["last.1.running_mean"], torch.zeros(12))


def test_the_untrained_control_keeps_the_statistics_of_batch_norms_in_eval_mode(images, tmp_path):
    def ranks(train_mode: bool) -> tuple[float, float]:
        def mine() -> Net:
            torch.manual_seed(0)
            net = Net().train(train_mode)
            net.stem.eval()
            return net

        asked = config(images, tmp_path, name=f"r{train_mode}", length="1it", **settings("random"))
        arms = evaluate_run(pretrain(asked, backbone=mine()).run, backbone=mine(), protocols=("rank",)).arms
        return arms["pretrained"]["effective_rank"], arms["untrained"]["effective_rank"]

    kept, settled = ranks(train_mode=True), ranks(train_mode=False)
    assert kept[0] == kept[1]
    assert settled[0] == settled[1]
    assert kept != settled


def test_an_encoder_in_eval_mode_is_trained_as_a_whole(images, tmp_path):
    run = pretrain(config(images, tmp_path, name="r", length="2it"), backbone=Net().eval()).run
    state, _ = read_encoder(run / "encoder.safetensors")
    assert state["stem.1.running_mean"].any()
    assert state["last.1.running_mean"].any()


def test_the_plan_names_options_and_stem_of_the_encoder(images, tmp_path):
    said = StringIO()
    pretrain(config(images, tmp_path, length="1it"), console=Console(file=said, width=400))
    assert "; resnet18 (channels 8, 8, 8, 8; layers 1, 1, 1, 1), small stem, 8 features" in said.getvalue()
    pretrain(config(images, tmp_path, length="1it"), backbone=Net(), console=Console(file=said, width=400))
    assert "; Net (own module), 12 features" in said.getvalue()


class Auxiliary(Net):
    """With a second head in train mode."""

    def forward(self, x: torch.Tensor):
        h = super().forward(x)
        return (h, h) if self.training else h


class Named(Net):
    def forward(self, x: torch.Tensor):
        return {"features": super().forward(x)}


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (Named, r"in eval mode .*dict of \['features'\] \(1, 12\)"),
        (Auxiliary, r"in train mode .*tuple"),
    ],
)
def test_an_encoder_that_returns_no_tensor_is_refused_before_anything_is_kept(images, tmp_path, own, said):
    with pytest.raises(UserError, match=said):
        pretrain(config(images, tmp_path, name="r"), backbone=own())
    assert not (tmp_path / "r").exists()


def test_an_encoder_that_is_frozen_throughout_is_refused(images, tmp_path):
    with pytest.raises(UserError, match=r"no parameter.*requires_grad_\(True\)"):
        pretrain(config(images, tmp_path, name="r"), backbone=Net().requires_grad_(False))


def test_an_encoder_that_is_frozen_throughout_is_measured_by_the_method_that_trains_nothing(images, tmp_path):
    asked = config(images, tmp_path, name="r", evaluate=True, **settings("random"))
    outcome = pretrain(asked, backbone=Net().requires_grad_(False))
    assert outcome.evaluation is not None
    assert "pretrained" in outcome.evaluation.arms


@pytest.mark.parametrize("changes", [settings("frossl"), settings("mocov2plus", micro_batch=3)])
@pytest.mark.parametrize("learns", ["last", "last.1", "last.1.bias"])
def test_what_is_frozen_of_an_encoder_stays_and_the_rest_learns(images, tmp_path, changes, learns):
    mine = Net()
    for name, p in mine.named_parameters():
        p.requires_grad_(name.startswith(learns))
    before = {name: p.detach().clone() for name, p in mine.named_parameters()}
    run = pretrain(config(images, tmp_path, name="r", length="2it", **changes), backbone=mine).run
    state, _ = read_encoder(run / "encoder.safetensors")
    for name, value in before.items():
        assert torch.equal(state[name], value) == (not name.startswith(learns)), name


def test_a_bias_alone_can_be_trained(images, tmp_path):
    """Nothing is kept for its backward pass, so that there is no memory to plan with."""
    mine = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)).requires_grad_(False)
    mine[1].bias.requires_grad_(True)
    pretrain(config(images, tmp_path, name="r", length="1it"), backbone=mine)
    assert mine[1].bias.grad is not None
