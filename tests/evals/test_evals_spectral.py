from __future__ import annotations

import pytest
import torch

from frossl.core.linalg import covariance_spectrum
from frossl.core.types import Features
from frossl.evals.spectral import effective_rank, rank


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_eigenvalues(eigenvalues: torch.Tensor, n: int, width: int) -> torch.Tensor:
    """``n`` rows whose covariance has exactly these eigenvalues, in random directions."""
    r = len(eigenvalues)
    left = normal(n, r)
    left = torch.linalg.qr(left - left.mean(0))[0]
    right = torch.linalg.qr(normal(width, width, seed=1))[0][:r]
    return (left * (n * eigenvalues).sqrt()) @ right


def test_isotropic_features_have_nearly_full_rank():
    # Of N samples in F dimensions the ratio is expected to be F / (1 + F / N).
    assert effective_rank(normal(20_000, 16)) == pytest.approx(16, rel=0.01)
    assert effective_rank(normal(200, 100)) == pytest.approx(100 / 1.5, rel=0.05)


@pytest.mark.parametrize(("n", "width"), [(50, 20), (20, 50)])
@pytest.mark.parametrize("r", [1, 2, 7, 19])
def test_r_equal_eigenvalues_have_rank_r(r, n, width):
    assert effective_rank(with_eigenvalues(torch.ones(r).double(), n, width)) == pytest.approx(r, abs=1e-9)


@pytest.mark.parametrize(("n", "width"), [(60, 30), (30, 60)])
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_a_power_law_has_the_participation_ratio_of_its_eigenvalues(power, n, width):
    eigenvalues = torch.arange(1, 26).double() ** -power
    wanted = float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    assert effective_rank(with_eigenvalues(eigenvalues, n, width)) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(("n", "width"), [(60, 30), (30, 60), (30, 30), (31, 30), (2, 5)])
def test_the_spectrum_is_that_of_the_covariance_whichever_matrix_is_smaller(n, width):
    x = normal(n, width) * torch.linspace(0.1, 2, width) + 3
    got = covariance_spectrum(x)
    wanted = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)[: min(n, width)]
    assert got.shape == (min(n, width),)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-9)
    assert (got >= 0).all()
    assert (got.diff() <= 0).all()


def test_columns_of_zeros_change_the_matrix_that_is_used_and_not_the_rank():
    """25 rows in 20 and, with zeros, in 30 dimensions: the covariance and the Gram matrix."""
    x = normal(25, 20)
    padded = torch.cat([x, torch.zeros(25, 10).double()], 1)
    assert effective_rank(padded) == pytest.approx(effective_rank(x), rel=1e-10)


@pytest.mark.parametrize(("n", "width"), [(40, 10), (10, 40)])
def test_rank_does_not_change_under_rotation_shift_and_scale(n, width):
    x = normal(n, width) * torch.linspace(0.2, 3, width)
    turn = torch.linalg.qr(normal(width, width, seed=2))[0]
    wanted = effective_rank(x)
    assert effective_rank(x @ turn) == pytest.approx(wanted, rel=1e-9)
    assert effective_rank(x + 10 * normal(width, seed=3)) == pytest.approx(wanted, rel=1e-9)
    assert effective_rank(1e-3 * x) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, -0.7, 1000.3])
@pytest.mark.parametrize(("n", "width"), [(3, 8), (7, 8), (100, 8), (1000, 8)])
def test_constant_features_have_rank_zero(n, width, constant):
    x = torch.full((n, width), constant) * torch.linspace(0.3, 1, width)
    assert rank(Features(x, x)) == {"effective_rank": 0.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [7, 1000])
def test_the_rounding_of_the_mean_of_constant_features_is_not_a_direction(n, dtype):
    assert effective_rank(torch.linspace(0.3, 1000.3, 8, dtype=dtype).expand(n, -1)) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rank_lies_between_one_and_what_is_possible(dtype):
    for n, width in [(2, 5), (5, 2), (5, 5), (30, 4)]:
        got = effective_rank(normal(n, width).to(dtype))
        assert 1 - 1e-5 <= got <= min(n - 1, width) + 1e-5


def test_the_metric_reads_the_held_out_features_in_double_precision():
    """In single precision an offset of 10,000 leaves noise of the size of the small directions."""
    x = with_eigenvalues(torch.tensor([1.0, 0.01]).double(), 50, 8)
    test = (x + 1e4).float()
    got = rank(Features(normal(50, 8).float(), test))["effective_rank"]
    assert got == effective_rank(test.double())
    assert got == pytest.approx(1.01**2 / 1.0001, rel=0.01)
