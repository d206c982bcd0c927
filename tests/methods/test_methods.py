"""What every registered method keeps to."""

import json

import pytest
import torch

from frossl.core.config import from_plain, to_plain
from frossl.methods import METHODS
from frossl.methods.frossl import FroSSL

SMALL = {"projector": "16-bn-relu-12"}


def built(name: str, features: int = 10) -> torch.nn.Module:
    torch.manual_seed(0)
    return METHODS[name](METHODS[name].Config(**SMALL), features)


def views(count: int, images: int = 24, features: int = 10) -> torch.Tensor:
    """Views of images that share most of what they show."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, images, features, generator=generator)
    return image + 0.3 * torch.randn(count, images, features, generator=generator)


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("count", [2, 3, 8])
def test_terms_sum_to_the_total_for_any_number_of_views(name, count):
    loss = built(name)(views(count))
    assert loss.total.ndim == 0
    assert loss.total.item() == pytest.approx(sum(term.item() for term in loss.terms.values()), rel=1e-6)
    assert not any(term.requires_grad for term in loss.terms.values())


@pytest.mark.parametrize("name", list(METHODS))
def test_twenty_steps_lower_the_loss(name):
    method, h = built(name), views(3)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = method(h).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", list(METHODS))
def test_all_state_is_in_the_state_dict(name):
    method, other = built(name), METHODS[name](METHODS[name].Config(**SMALL), 10)
    h = views(2)
    method(h)
    other.load_state_dict(method.state_dict())
    assert torch.equal(method(h).total, other(h).total)


@pytest.mark.parametrize("name", list(METHODS))
def test_the_configuration_round_trips_and_the_method_says_what_it_is(name):
    config = METHODS[name].Config(**SMALL)
    assert from_plain(type(config), json.loads(json.dumps(to_plain(config)))) == config
    assert METHODS[name].__doc__


@pytest.mark.parametrize("images", [8, 24])
def test_without_a_weight_frossl_takes_four_times_images_over_width(images):
    h = views(2, images)
    chosen = built("frossl")(h)
    torch.manual_seed(0)
    written = FroSSL(FroSSL.Config(**SMALL, invariance_weight=4 * images / 12), 10)(h)
    assert torch.equal(chosen.total, written.total)
