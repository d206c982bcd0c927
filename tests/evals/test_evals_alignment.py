from __future__ import annotations

import math

import pytest
import torch

from frossl.core.types import Features
from frossl.evals.alignment import alignment, alignment_and_uniformity, uniformity


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def naive_alignment(h_VNF: torch.Tensor) -> float:
    h = h_VNF.double()
    h = h / h.norm(dim=2, keepdim=True)
    views, n, _ = h.shape
    pairs = [(u, v) for u in range(views) for v in range(views) if u < v]
    return sum(float((h[u, i] - h[v, i]).square().sum()) for u, v in pairs for i in range(n)) / (len(pairs) * n)


def naive_uniformity(x_NF: torch.Tensor) -> float:
    x = x_NF.double()
    x = x / x.norm(dim=1, keepdim=True)
    terms = [math.exp(-2 * float((x[i] - x[j]).square().sum())) for i in range(len(x)) for j in range(i)]
    return math.log(sum(terms) / len(terms))


@pytest.mark.parametrize(("views", "n", "width"), [(2, 5, 3), (3, 4, 6), (8, 3, 2), (2, 1, 4)])
def test_alignment_is_the_mean_over_pairs_of_views(views, n, width):
    h = normal(views, n, width) * torch.linspace(0.1, 9, n)[:, None]
    assert alignment(h) == pytest.approx(naive_alignment(h), rel=1e-5)


def test_equal_views_are_aligned_whatever_their_length():
    h = normal(1, 6, 4)
    assert alignment(h.expand(3, -1, -1)) == pytest.approx(0, abs=1e-12)
    assert alignment(torch.cat([h, 5 * h])) == pytest.approx(0, abs=1e-10)


def test_nearly_equal_views_do_not_cancel_to_zero():
    h = normal(2, 50, 16)
    h[1] = h[0] + 1e-4 * h[1]
    assert alignment(h) == pytest.approx(naive_alignment(h), rel=1e-2)


def test_opposite_views_have_the_largest_alignment_of_two():
    h = normal(1, 6, 4)
    assert alignment(torch.cat([h, -h])) == pytest.approx(4, rel=1e-6)


@pytest.mark.parametrize(("n", "width"), [(2, 3), (20, 2), (15, 8)])
def test_uniformity_is_the_log_mean_over_pairs_of_images(n, width):
    x = normal(n, width) * torch.linspace(0.1, 9, n)[:, None]
    assert uniformity(x) == pytest.approx(naive_uniformity(x), rel=1e-5)


def test_collapsed_features_have_uniformity_zero():
    assert uniformity(normal(1, 4).expand(10, -1)) == pytest.approx(0, abs=1e-9)
    assert uniformity(torch.zeros(10, 4)) == 0


def test_uniformity_of_spread_features_is_near_that_of_the_sphere():
    """In many dimensions unit vectors are nearly orthogonal: the squared distance is about 2."""
    assert uniformity(normal(400, 256)) == pytest.approx(-4, abs=0.05)
    assert uniformity(normal(400, 2)) < uniformity(normal(400, 2).abs())


def test_without_views_there_is_uniformity_only():
    x = normal(10, 4)
    assert alignment_and_uniformity(Features(x + 9, x)).keys() == {"uniformity", "uniformity_low", "uniformity_high"}
    views = normal(2, 10, 4, seed=1)
    both = alignment_and_uniformity(Features(x + 9, x, views_VNF=views))
    assert both["alignment"] == pytest.approx(alignment(views))
    assert both["uniformity"] == uniformity(x)


def test_intervals_shrink_with_the_root_of_the_number_of_images():
    def widths(n: int) -> tuple[float, float]:
        views = normal(2, n, 6)
        got = alignment_and_uniformity(Features(views[0], views[0], views_VNF=views))
        return tuple(got[f"{name}_high"] - got[f"{name}_low"] for name in ("alignment", "uniformity"))

    few, many = widths(100), widths(1600)
    assert few[0] / many[0] == pytest.approx(4, rel=0.25)
    assert few[1] / many[1] > 2  # from ten groups, so rough
