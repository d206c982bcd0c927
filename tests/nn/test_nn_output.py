from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from frossl.core.types import UserError
from frossl.nn.backbones import build_backbone
from frossl.nn.output import feature_width, trains

CPU = torch.device("cpu")


class Stub(nn.Module):
    """Anything that gives ``output`` of ``(B, C, H, W)``."""

    def __init__(self, output) -> None:
        super().__init__()
        self.output, self.norm = output, nn.BatchNorm2d(3)

    def forward(self, x):
        return self.output(self.norm(x))


@pytest.mark.parametrize("training", [True, False])
def test_feature_width_leaves_the_encoder_as_it_was(training):
    model = Stub(lambda x: x.flatten(1)).train(training)
    assert feature_width(model, 3, 4) == 48
    assert model.training == training
    assert model.norm.training == training
    assert int(model.norm.num_batches_tracked) == 0


def test_feature_width_wants_one_vector_per_image():
    with pytest.raises(UserError, match=r"\(B, F\); got \(1, 3, 4, 4\)"):
        feature_width(Stub(lambda x: x), 3, 4)


def test_feature_width_tells_what_the_encoder_does_not_take_and_leaves_it_as_it_was():
    model = build_backbone("resnet18", size=32)
    with pytest.raises(UserError, match="4 x 32 x 32"):
        feature_width(model, 4, 32)
    assert model.training
    with pytest.raises(UserError, match=r"3 x 4 x 4 .*index 4"):  # no such row in a table of positions
        feature_width(Stub(lambda x: x[:, :, 4]), 3, 4)


def test_an_encoder_of_ones_own_may_be_in_float64_or_elsewhere():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    assert feature_width(encoder.double(), 3, 8) == 5
    assert feature_width(encoder.to("meta"), 3, 8) == 5


@dataclass
class Record:
    tokens: Tensor
    pooled: Tensor


class ModelOutput(OrderedDict):
    """As that of transformers: a dictionary whose entries are attributes too."""

    def __getattr__(self, name):
        return self[name]


Outputs = namedtuple("Outputs", "logits aux_logits")
OUTPUTS = {
    "dictionary": (lambda x: {"out": x}, r"dict of \['out'\] \(1, 3, 4, 4\)\."),
    "tuple": (lambda x: (x, x.mean((2, 3))), r"tuple of \[0\] \(1, 3, 4, 4\), \[1\] \(1, 3\)\."),
    "dataclass": (
        lambda x: Record(x.flatten(2), x.mean((2, 3))),
        r"Record of \.tokens \(1, 3, 16\), \.pooled \(1, 3\)\.",
    ),
    "transformers": (
        lambda x: ModelOutput(last_hidden_state=x.flatten(2), hidden_states=None),
        r"ModelOutput of \['last_hidden_state'\] \(1, 3, 16\), \['hidden_states'\] NoneType\.",
    ),
    "nothing": (lambda x: None, "NoneType\\."),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_what_is_no_tensor_is_described_by_its_parts(kind):
    output, said = OUTPUTS[kind]
    with pytest.raises(UserError, match=rf"\(B, F\); in eval mode .*{said} Wrap it"):
        feature_width(Stub(output), 3, 4)


class Auxiliary(nn.Module):
    """As torchvision's Inception: a second head while it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout(0.5)

    def forward(self, x):
        h = self.drop(self.norm(x)).mean((2, 3))
        return Outputs(h, h) if self.training else h


def test_auxiliary_heads_of_train_mode_are_described():
    model = Auxiliary()
    assert feature_width(model, 3, 4) == 3
    with pytest.raises(UserError, match=r"in train mode .*Outputs of \.logits \(2, 3\)"):
        trains(model, 3, 4, 3, CPU)


@pytest.mark.parametrize("training", [True, False])
def test_looking_in_train_mode_leaves_encoder_and_generator_as_they_were(training):
    model = Stub(lambda x: nn.functional.dropout(x.flatten(1) + 1)).train(training)
    before = torch.get_rng_state()
    assert trains(model, 3, 4, 48, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training == model.norm.training == training
    assert int(model.norm.num_batches_tracked) == 0
    assert model.norm.weight.grad is None


def test_features_that_are_more_in_train_mode_are_refused():
    class Wider(nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(1)).repeat(1, 1 + self.training)

    with pytest.raises(UserError, match=r"5 features in eval.*10 in train"):
        trains(Wider(12, 5), 3, 2, 5, CPU)


def test_one_vector_for_the_whole_batch_is_refused():
    with pytest.raises(UserError, match=r"\(1, 96\) for 2 images"):
        trains(Stub(lambda x: x.reshape(1, -1)), 3, 4, 48, CPU)


def test_an_encoder_trains_if_a_gradient_reaches_some_of_it():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 4)).requires_grad_(False)
    assert not trains(model, 3, 2, 4, CPU)
    model[2].bias.requires_grad_(True)
    assert trains(model, 3, 2, 4, CPU)
