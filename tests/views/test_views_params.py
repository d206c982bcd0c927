from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop

from frossl.views.params import ORDERS, ViewParams, sample_params
from frossl.views.recipes import View

RICH = View(count=3, jitter=0.7, flip=0.4, vertical=0.3, grayscale=0.3, blur=0.6, solarize=0.2)
NAMES = [f.name for f in fields(ViewParams)]


def drawn(view: View, n: int = 4000, **changes) -> ViewParams:
    keys = {"seed": 0, "epoch": 0, "index_N": torch.arange(n), "height": 32, "width": 48, **changes}
    (only,) = sample_params((view,), **keys)
    return only


def same(a: ViewParams, b: ViewParams, at_a=..., at_b=...) -> bool:
    return all(torch.equal(getattr(a, name)[at_a], getattr(b, name)[at_b]) for name in NAMES)


# What depends on what


@given(
    index=st.lists(st.integers(0, 2**40), min_size=1, max_size=8, unique=True),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 1000),
    data=st.data(),
)
def test_a_sample_draws_the_same_in_any_batch_at_any_place(index, seed, epoch, data):
    keys = {"seed": seed, "epoch": epoch}
    order = data.draw(st.permutations(range(len(index))))
    batch = drawn(RICH, index_N=torch.tensor(index), **keys)
    shuffled = drawn(RICH, index_N=torch.tensor([index[i] for i in order]), **keys)
    assert same(batch, shuffled, (slice(None), list(order)))
    alone = drawn(RICH, index_N=torch.tensor(index[:1]), **keys)
    assert same(batch, alone, (slice(None), slice(0, 1)))


def test_sizes_belong_to_their_own_sample():
    """Decoded images differ in size: another image's size must not matter."""
    heights, widths = torch.tensor([32, 500, 10]), torch.tensor([48, 20, 1000])
    mixed = drawn(RICH, n=3, height=heights, width=widths)
    for i in range(3):
        alone = drawn(RICH, index_N=torch.tensor([i]), height=int(heights[i]), width=int(widths[i]))
        assert same(mixed, alone, (slice(None), slice(i, i + 1)))


@pytest.mark.parametrize("key", ["seed", "epoch", "sample", "view"])
def test_every_key_changes_every_parameter(key):
    n = 64
    base = drawn(RICH, n)
    other = {
        "seed": lambda: drawn(RICH, n, seed=1),
        "epoch": lambda: drawn(RICH, n, epoch=1),
        "sample": lambda: drawn(RICH, index_N=torch.arange(n) + n),
        "view": lambda: sample_params((RICH, RICH), seed=0, epoch=0, index_N=torch.arange(n), height=32, width=48)[1],
    }[key]()
    for name in NAMES:
        assert not torch.equal(getattr(base, name), getattr(other, name))


def test_a_view_draws_the_same_however_views_are_grouped():
    index = torch.arange(16)
    keys = {"seed": 3, "epoch": 2, "index_N": index, "height": 32, "width": 48}
    (whole,) = sample_params((replace(RICH, count=5),), **keys)
    parts = sample_params((replace(RICH, count=2), replace(RICH, count=3)), **keys)
    assert [p.top.shape for p in parts] == [(2, 16), (3, 16)]
    for name in NAMES:
        assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(whole, name))


def test_changing_one_probability_changes_that_parameter_alone():
    base, other = drawn(RICH, 64), drawn(replace(RICH, blur=1.0), 64)
    assert [name for name in NAMES if not torch.equal(getattr(base, name), getattr(other, name))] == ["blur"]


# Distributions


def check_mean(x: torch.Tensor, mean: float, variance: float) -> None:
    """Within 5 standard errors."""
    assert abs(float(x.double().mean()) - mean) < 5 * np.sqrt(variance / x.numel())


@pytest.mark.parametrize("name", ["flip", "vertical", "jitter", "grayscale", "blur", "solarize"])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_probabilities(name, p):
    chosen = getattr(drawn(View(**{name: p})), name)
    assert chosen.dtype == torch.bool
    if p in (0.0, 1.0):
        assert bool((chosen == bool(p)).all())
    check_mean(chosen, p, p * (1 - p) + 1e-12)


def test_choices_are_independent_of_each_other():
    d = drawn(replace(RICH, count=2), 10_000)
    columns = [getattr(d, name) for name in NAMES if name not in ("factors", "left", "width")]
    top, height = (next(i for i, c in enumerate(columns) if c is part) for part in (d.top, d.height))
    columns += d.factors.unbind(-1)
    x = torch.stack([c.double() for c in columns])
    between = torch.corrcoef(torch.cat([x[:, 0], x[:, 1]])) - torch.eye(2 * len(columns))
    for first in (0, len(columns)):  # the place of a crop depends on its size, by nature
        between[first + top, first + height] = between[first + height, first + top] = 0
    assert between.abs().max() < 5 / np.sqrt(10_000)


def test_orders_of_colour_jitter_are_all_24_and_uniform():
    assert len(set(ORDERS)) == 24
    counts = torch.bincount(drawn(View(count=2), 12_000).order.flatten(), minlength=24)
    assert len(counts) == 24
    expected = 1000.0
    assert float(((counts - expected) ** 2 / expected).sum()) < 23 + 5 * np.sqrt(46)


@pytest.mark.parametrize(("amount", "low", "high"), [(0.4, 0.6, 1.4), (0.0, 1.0, 1.0), (1.5, 0.0, 2.5)])
def test_jitter_factors_are_uniform_in_their_range(amount, low, high):
    factors = drawn(View(brightness=amount, contrast=amount, saturation=amount, hue=0.1)).factors
    bounds = [(low, high)] * 3 + [(-0.1, 0.1)]
    for k, (a, b) in enumerate(bounds):
        x = factors[..., k]
        assert x.min() >= a - 1e-6
        assert x.max() <= b + 1e-6
        check_mean(x, (a + b) / 2, (b - a) ** 2 / 12 + 1e-12)
        if b > a:
            assert float(x.double().var()) == pytest.approx((b - a) ** 2 / 12, rel=0.1)


def test_blur_sigma_is_uniform_in_its_range():
    sigma = drawn(View(blur_sigma=(0.1, 2.0))).sigma
    assert sigma.min() >= 0.1 - 1e-6
    assert sigma.max() <= 2.0 + 1e-6
    check_mean(sigma, 1.05, 1.9**2 / 12)


@pytest.mark.parametrize(
    ("height", "width"), [(32, 48), (96, 96), (7, 200), (200, 7), (1, 1), (3, 5)], ids=lambda x: str(x)
)
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.25, 0.25), (1.0, 1.0)])
def test_crops_are_whole_pixels_inside_the_image(height, width, scale):
    d = drawn(View(scale=scale), 500, height=height, width=width)
    for start, length, size in ((d.top, d.height, height), (d.left, d.width, width)):
        assert torch.equal(start, start.round())
        assert torch.equal(length, length.round())
        assert start.min() >= 0
        assert length.min() >= 1
        assert (start + length).max() <= size


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.2, 1.0), (0.25, 0.25)])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80)])
def test_crops_are_distributed_as_torchvision_draws_them(height, width, scale):
    n, ratio = 3000, (3 / 4, 4 / 3)
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(n)]).double()
    d = drawn(View(scale=scale, ratio=ratio), n, height=height, width=width)
    ours = torch.stack([t.flatten() for t in (d.top, d.left, d.height, d.width)], -1).double()

    def statistics(box: torch.Tensor) -> list[torch.Tensor]:
        top, left, h, w = box.unbind(-1)
        return [top, left, h, w, h * w / (height * width), (w / h).log()]

    for a, b in zip(statistics(ours), statistics(theirs), strict=True):
        assert abs(float(a.mean() - b.mean())) < 5 * float(((a.var() / len(a)) + b.var() / len(b)).sqrt())
        assert float(a.std()) == pytest.approx(float(b.std()), rel=0.1)
        for q in (0.05, 0.5, 0.95):
            assert abs(float((a <= b.quantile(q)).double().mean() - (b <= b.quantile(q)).double().mean())) < 0.06


def test_every_place_of_a_crop_is_reached_including_the_last():
    d = drawn(View(scale=(0.25, 0.25), ratio=(1.0, 1.0)), height=8, width=8)
    assert set(d.height.unique().tolist()) == {4.0}
    assert d.top.unique().tolist() == [0, 1, 2, 3, 4]
    assert d.left.unique().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("height", "width"), [(10, 100), (100, 10), (64, 64)])
def test_when_no_try_fits_the_crop_is_torchvisions_centred_one(height, width):
    """A whole-area crop of a long image never fits the ratio bounds, so all ten tries fail."""
    torch.manual_seed(0)
    scale, ratio = (1.0, 1.0), (3 / 4, 4 / 3) if height != width else (0.5, 0.6)
    wanted = RandomResizedCrop.get_params(torch.empty(1, height, width), list(scale), list(ratio))
    d = drawn(View(scale=scale, ratio=ratio), 20, height=height, width=width)
    got = {tuple(int(t[v, n]) for t in (d.top, d.left, d.height, d.width)) for v in range(2) for n in range(20)}
    assert got == {tuple(wanted)}


def test_no_crop_is_the_whole_square_image():
    d = drawn(View(scale=(1.0, 1.0), ratio=(1.0, 1.0)), 50, height=32, width=32)
    assert (d.top == 0).all()
    assert (d.left == 0).all()
    assert (d.height == 32).all()
    assert (d.width == 32).all()
