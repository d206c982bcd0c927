"""What docs/theory.md states, on the losses of the package."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from frossl.losses import barlow_twins, frossl

theory = pytest.importorskip("linear_theory", reason="benchmarks/ is in the repository only")

OBJECTIVES = {
    "plain": theory.plain_barlow(),
    "barlow": theory.barlow(),
    "barlow, 0.005": theory.barlow(5e-3),
    "regulariser": theory.whole_frossl(0.0),
    "frossl": theory.whole_frossl(),
    "frossl, no log": theory.whole_frossl(log=False),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def off_diagonal(c: Tensor) -> Tensor:
    return (c * c).sum() - (c.diagonal() ** 2).sum()


def test_toy_views_have_the_moments_they_are_asked_for() -> None:
    data, agreement = torch.tensor([[2.0, 1.0, 0.5], [0.9, 0.4, 0.0]], dtype=torch.float64)
    first, second = theory.toy_views(data, agreement)
    n = len(first)
    torch.testing.assert_close(first.mean(0), torch.zeros_like(data))
    for x, y, expected in ((first, first, data), (second, second, data), (first, second, data * agreement)):
        torch.testing.assert_close(x.T @ y / n, expected.diag())


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("modes", [2, 8, 32])
def test_equations_are_the_gradient_of_the_loss(name: str, modes: int) -> None:
    assert theory.rate_error(OBJECTIVES[name], theory.flat_rotation(modes), seed=modes) < 1e-12


@pytest.mark.parametrize("name", ["barlow", "regulariser", "frossl"])
def test_equations_need_the_flat_rotation_where_columns_are_normalised(name: str) -> None:
    turn = torch.linalg.qr(normal(8, 8)).Q
    assert theory.rate_error(OBJECTIVES[name], turn) > 0.05
    assert theory.rate_error(OBJECTIVES["plain"], turn) < 1e-12


def test_simulation_follows_the_flow_the_closer_the_smaller_the_steps() -> None:
    data = torch.tensor([1.0, 0.5, 0.2, 0.1], dtype=torch.float64)
    agreement = torch.tensor([0.9, 0.7, 0.5, 0.4], dtype=torch.float64)
    views, start = theory.toy_views(data, agreement), theory.flat_rotation(4) * 0.5
    for objective, rate in ((theory.whole_frossl(), 2e-3), (theory.plain_barlow(), 2e-2), (theory.barlow(), 5e-4)):
        worst = []
        for part in (1, 2):
            found = theory.spectrum(theory.descend(objective, views, start, rate / part, 200 * part, 20 * part))
            times = np.arange(11) * 20 * rate
            expected = theory.flow(objective, data.numpy(), agreement.numpy(), 0.25 * data.numpy(), times)
            worst.append(abs(found - -np.sort(-expected)).max() / expected.max())
        assert worst[0] < 0.02
        assert worst[1] == pytest.approx(worst[0] / 2, rel=0.2)


def test_plain_barlow_twins_is_logistic_and_falls_in_rank_first() -> None:
    data, start = np.array([1.0, 0.3, 0.1]), 1e-4
    times = np.linspace(0, 12, 40)
    found = theory.flow(theory.plain_barlow(), data, np.ones(3), start * data, times)
    logistic = 1 / (1 + (1 / (start * data) - 1) * np.exp(-8 * np.outer(times, data)))
    np.testing.assert_allclose(found, logistic, rtol=1e-6)
    rank = theory.effective_rank(found)
    assert rank.min() < 1.1 < rank[0]


def test_under_frossl_of_equal_views_rank_never_falls_and_the_norm_of_the_map_stays() -> None:
    data = np.array([1.0, 0.3, 0.1, 0.02])
    times = np.linspace(0, 3e-4, 60)
    found = theory.flow(theory.whole_frossl(), data, np.ones(4), 1e-4 * data, times)
    rank = theory.effective_rank(found)
    assert (np.diff(rank) > -1e-9).all()
    assert rank[-1] > 3
    np.testing.assert_allclose((found / data).sum(1), 4e-4, rtol=1e-7)


def test_barlow_twins_of_equal_views_is_a_function_of_the_regulariser_of_frossl() -> None:
    z = normal(40, 6)
    twins = barlow_twins([z, z], off_diagonal_weight=0.3, epsilon=0.0).total
    regulariser = frossl([z, z], invariance_weight=0.0).total / 2
    torch.testing.assert_close(twins, 0.3 * (36 * regulariser.exp() - 6))


@pytest.mark.parametrize("views", [2, 3, 5])
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_value_of_frossl_in_terms_of_shares_and_agreement(views: int, scale: float) -> None:
    d, w = 4, 1.7
    p = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    r = torch.tensor([0.9, 0.8, 0.2, 0.5], dtype=torch.float64)
    columns = torch.linalg.qr(torch.cat([torch.ones(64, 1, dtype=torch.float64), normal(64, 24)], 1)).Q[:, 1:]
    shared, *own = columns.split(d, dim=1)
    turn = theory.flat_rotation(d)
    z = [(scale * (shared * (p * r).sqrt() + x * (p * (1 - r)).sqrt())) @ turn.T for x in own[:views]]
    expected = views * ((p * p).sum().log() + w * d / 64 * (1 - (r * p).sum()))
    torch.testing.assert_close(frossl(z, invariance_weight=w).total, expected)


@pytest.mark.parametrize("pull", [1.0, 2.0, 4.0, 8.0, 40.0])
def test_shares_at_rest_do_not_move_and_what_is_off_would_fade(pull: float) -> None:
    agreement = np.linspace(0.1, 0.95, 16)
    p = theory.steady_shares(agreement, pull)
    assert p.sum() == pytest.approx(1)
    slope = theory.whole_frossl(pull).slope(p, agreement)
    np.testing.assert_allclose(slope[p > 0], 0, atol=1e-12)
    assert (slope[p == 0] > 0).all()
    assert (p > 0).sum() == {1.0: 16, 2.0: 16, 4.0: 13, 8.0: 7, 40.0: 1}[pull]


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (20, 20)])
def test_duality_of_the_contrastive_forms(shape: tuple[int, int]) -> None:
    n, d = shape
    z = normal(n, d) * normal(n, 1, seed=1).exp()
    gram, moment = z @ z.T, z.T @ z
    torch.testing.assert_close(gram.norm(), moment.norm())
    row_fourths, column_fourths = ((z * z).sum(axis).square().sum() for axis in (1, 0))
    torch.testing.assert_close(off_diagonal(moment) + column_fourths, off_diagonal(gram) + row_fourths)

    columns, rows = (z / z.norm(dim=axis, keepdim=True) for axis in (0, 1))
    for normalise, expected in (
        ("batch", (off_diagonal(columns.T @ columns) + d) / d**2),
        ("sample", (off_diagonal(rows @ rows.T) + n) / n**2),
    ):
        found = frossl([z, z], invariance_weight=0.0, centre=False, normalise=normalise).total / 2
        torch.testing.assert_close(found, expected.log())


def test_a_diagonal_covariance_is_lowest_for_frossl_whatever_its_eigenvalues() -> None:
    columns = torch.linalg.qr(torch.cat([torch.ones(32, 1, dtype=torch.float64), normal(32, 4)], 1)).Q[:, 1:]
    z = columns * torch.tensor([1.0, 0.1, 0.01, 0.001], dtype=torch.float64)
    least = frossl([z, z], invariance_weight=0.0).total / 2
    assert least.item() == pytest.approx(-math.log(4))
    turned = z @ theory.flat_rotation(4).T
    assert (frossl([turned, turned], invariance_weight=0.0).total / 2).item() > -0.1
