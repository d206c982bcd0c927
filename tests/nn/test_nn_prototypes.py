from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from frossl.nn.prototypes import Prototypes


@pytest.fixture
def prototypes():
    torch.manual_seed(0)
    return Prototypes(6, 5)


def test_scores_are_cosines_whatever_the_length_of_a_prototype(prototypes):
    z = torch.randn(2, 3, 6)
    torch.testing.assert_close(prototypes.weight.norm(dim=1), torch.ones(5))
    expected = cosine_similarity(z[:, :, None], prototypes.weight, dim=-1)
    torch.testing.assert_close(prototypes(z), expected)
    with torch.no_grad():
        prototypes.weight.mul_(torch.tensor([[0.1], [3.0], [1.0], [7.0], [0.5]]))
    torch.testing.assert_close(prototypes(z), expected)


def test_frozen_prototypes_get_no_gradient_at_all_but_embeddings_do(prototypes):
    z = torch.randn(3, 6, requires_grad=True)
    prototypes(z, frozen=True).square().sum().backward()
    assert prototypes.weight.grad is None
    assert z.grad.abs().sum() > 0
    prototypes(z).square().sum().backward()
    assert prototypes.weight.grad.abs().sum() > 0


def test_autocast_does_not_round_the_cosines(prototypes):
    z = torch.randn(3, 6)
    with torch.autocast("cpu", torch.bfloat16):
        inside = prototypes(z)
    assert torch.equal(inside, prototypes(z))


def test_a_zero_embedding_has_zero_scores_and_a_finite_gradient(prototypes):
    z = torch.zeros(1, 6, requires_grad=True)
    prototypes(z).sum().backward()
    assert torch.equal(prototypes(z), torch.zeros(1, 5))
    assert torch.isfinite(z.grad).all()
    assert torch.isfinite(prototypes.weight.grad).all()
