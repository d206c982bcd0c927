from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import eigh

from frossl.core.types import Features
from frossl.evals.lidar import lidar, lidar_of_views


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_views(between: list[float], within: list[float], n: int = 60) -> torch.Tensor:
    """Views whose image means and whose differences have exactly these variances along the axes, uncorrelated."""
    columns = normal(n, 2 * len(between))
    columns = torch.linalg.qr(columns - columns.mean(0))[0]
    means, half = columns.split(len(between), 1)
    means = means * (torch.tensor(between, dtype=torch.float64) * (n - 1)).sqrt()
    half = half * (torch.tensor(within, dtype=torch.float64) * n / 2).sqrt()
    return torch.stack([means + half, means - half])


@pytest.mark.parametrize("r", [1, 3, 6])
def test_r_directions_of_equal_signal_have_rank_r(r):
    signal = [1.0] * r + [0.0] * (6 - r)
    assert lidar(two_views(signal, [0.5] * 6)) == pytest.approx(r, rel=1e-6)


def test_it_is_the_signal_over_what_augmentation_changes_that_counts():
    """Equal in covariance, unequal in this; and the other way round."""
    assert lidar(two_views([4.0, 9.0, 1.0], [4.0, 9.0, 1.0]), delta=0.0) == pytest.approx(3, rel=1e-9)
    p = np.array([10.0, 1.0, 0.1]) / 11.1
    wanted = math.exp(-(p * np.log(p)).sum())
    assert lidar(two_views([1.0, 1.0, 1.0], [0.1, 1.0, 10.0]), delta=0.0) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(("views", "n", "width"), [(2, 40, 10), (5, 12, 30), (3, 20, 20)])
def test_the_eigenvalues_are_those_of_the_generalised_problem(views, n, width):
    h = normal(1, n, width) + 0.5 * normal(views, n, width, seed=1)
    means = h.mean(0)
    within = sum(np.outer(d, d) for d in (h - means).reshape(-1, width).numpy()) / (n * (views - 1))
    values = eigh(np.cov(means.numpy().T), within + 1e-4 * np.eye(width), eigvals_only=True)
    p = values[values > 1e-9 * values.max()]
    p = p / p.sum()
    assert lidar(h) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-6)


def test_rotation_and_shift_do_not_matter_and_scale_hardly():
    h = normal(1, 50, 8) * torch.linspace(0.5, 3, 8) + 0.5 * normal(4, 50, 8, seed=1)
    turn = torch.linalg.qr(normal(8, 8, seed=2))[0]
    assert lidar(h @ turn + 7) == pytest.approx(lidar(h), rel=1e-8)
    assert lidar(10 * h) == pytest.approx(lidar(h), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_features_have_rank_zero(dtype):
    assert lidar(torch.linspace(0.3, 100.3, 8, dtype=dtype).expand(3, 50, -1)) == 0.0


def test_views_that_are_all_alike_have_the_rank_of_their_covariance():
    assert lidar(normal(1, 400, 3).expand(2, -1, -1)) == pytest.approx(3, rel=0.02)


def test_without_two_views_there_is_no_figure():
    x = normal(10, 4)
    assert lidar_of_views(Features(x, x)) == {}
    assert lidar_of_views(Features(x, x, views_VNF=x[None])) == {}
    h = normal(2, 10, 4)
    got = lidar_of_views(Features(x, x, views_VNF=h))
    assert got["lidar"] == lidar(h)
    assert got["lidar_low"] < got["lidar"] < got["lidar_high"]


def test_features_of_more_axes_than_samples_have_what_a_rotation_into_fewer_has():
    """The rest of the space is empty, so the rank is that in coordinates of the part that is not."""
    h = normal(2, 6, 10)
    turn = torch.linalg.qr(normal(64, 10, seed=1))[0]
    assert lidar(h @ turn.T) == pytest.approx(lidar(h), rel=1e-8)
