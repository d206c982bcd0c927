from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from frossl.core.linalg import covariance_spectrum, second_moment_spectrum
from frossl.core.types import Features
from frossl.evals.spectral import (
    Moments,
    collision_entropy,
    condition_number,
    effective_rank,
    entropy_rank,
    participation_ratio,
    power_law_exponent,
    rank,
    rankme,
    spectrum,
    stable_rank,
    von_neumann_entropy,
)


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
    assert rank(Features(x, x)) == {"effective_rank": 0.0, "effective_rank_low": 0.0, "effective_rank_high": 0.0}


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


def figures(x: torch.Tensor) -> dict[str, float]:
    """Without their intervals."""
    got = spectrum(Features(x[:1], x))
    return {name: value for name, value in got.items() if not name.endswith(("_low", "_high"))}


def test_every_figure_that_groups_of_images_have_too_has_an_interval():
    got = spectrum(Features(normal(1, 20), normal(200, 20) + 1))
    names = {name for name in got if not name.endswith(("_low", "_high"))}
    assert got.keys() == {f"{name}{end}" for name in names for end in ("", "_low", "_high")}
    assert all(got[f"{name}_low"] < got[name] < got[f"{name}_high"] for name in names)


def test_the_interval_of_the_rank_is_as_wide_as_ranks_of_other_samples_spread():
    ranks, widths = [], []
    for seed in range(80):
        x = normal(400, 10, seed=seed) * torch.linspace(0.3, 2, 10)
        got = rank(Features(x[:1], x))
        ranks.append(got["effective_rank"])
        widths.append((got["effective_rank_high"] - got["effective_rank_low"]) / 2)
    assert np.mean(widths) == pytest.approx(2.26 * np.std(ranks, ddof=1), rel=0.35)


@pytest.mark.parametrize(("n", "width"), [(50, 20), (20, 50)])
@pytest.mark.parametrize("r", [1, 2, 7, 19])
def test_r_equal_eigenvalues_have_every_rank_r_and_both_entropies_log_r(r, n, width):
    got = figures(with_eigenvalues(torch.ones(r).double(), n, width))
    for name in ("effective_rank", "entropy_rank", "stable_rank", "rankme"):
        assert got[name] == pytest.approx(r, rel=1e-9), name
    for name in ("collision_entropy", "von_neumann_entropy"):
        assert got[name] == pytest.approx(math.log(r), abs=1e-9), name
    assert got["condition_number"] == pytest.approx(1, abs=1e-9)
    assert got["mean_to_spread"] == pytest.approx(0, abs=1e-9)
    assert got.get("power_law_exponent", 0) == 0


def test_figures_are_their_formulas_on_unequal_eigenvalues():
    eigenvalues = torch.tensor([5.0, 2.0, 1.0, 0.5]).double()
    got, p = figures(with_eigenvalues(eigenvalues, 30, 9)), eigenvalues / eigenvalues.sum()
    assert got["collision_entropy"] == pytest.approx(-math.log(float((p**2).sum())))
    assert got["von_neumann_entropy"] == pytest.approx(float(-(p * p.log()).sum()))
    assert got["effective_rank"] == pytest.approx(math.exp(got["collision_entropy"]))
    assert got["entropy_rank"] == pytest.approx(math.exp(got["von_neumann_entropy"]))
    assert got["stable_rank"] == pytest.approx(8.5 / 5)
    assert got["condition_number"] == pytest.approx(10)
    q = eigenvalues.sqrt() / eigenvalues.sqrt().sum()
    assert got["rankme"] == pytest.approx(math.exp(float(-(q * q.log()).sum())))


@pytest.mark.parametrize(("n", "width"), [(300, 150), (150, 300)])
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("count", [20, 60, 149])
def test_the_exponent_of_a_power_law_is_found(count, power, n, width):
    eigenvalues = torch.arange(1, count + 1).double() ** -power
    eigenvalues[:10] *= 7  # those before the range do not matter
    assert figures(with_eigenvalues(eigenvalues, n, width))["power_law_exponent"] == pytest.approx(power, rel=1e-6)


def test_the_exponent_is_the_slope_of_a_line_through_the_stated_eigenvalues():
    eigenvalues = covariance_spectrum(normal(500, 200) * torch.linspace(0.1, 3, 200))
    x, y = torch.arange(11, 101).double().log(), eigenvalues[10:100].log()
    line = torch.stack([x, torch.ones_like(x)], 1)
    assert power_law_exponent(eigenvalues) == pytest.approx(-float(torch.linalg.lstsq(line, y[:, None])[0][0, 0]))
    assert power_law_exponent(eigenvalues[:20]) is not None
    assert power_law_exponent(eigenvalues[:19]) is None


def test_isotropic_features_are_flat():
    got = figures(normal(20_000, 16))
    for name in ("effective_rank", "entropy_rank", "rankme"):
        assert got[name] == pytest.approx(16, rel=0.01), name
    # Edges of the Marchenko-Pastur law.
    root = math.sqrt(16 / 20_000)
    assert 1 < got["condition_number"] < ((1 + root) / (1 - root)) ** 2
    assert got["stable_rank"] > 16 / (1 + root) ** 2
    assert figures(normal(20_000, 64))["power_law_exponent"] == pytest.approx(0, abs=0.1)


def test_two_far_clusters_are_one_direction():
    x = normal(400, 10)
    x[::2, 0] += 1000
    got = figures(x)
    for name in ("effective_rank", "entropy_rank", "stable_rank"):
        assert got[name] == pytest.approx(1, abs=0.01), name
    assert got["mean_to_spread"] == pytest.approx(1, abs=0.01)  # means 0 and 1000: mean 500, deviation 500
    assert got["condition_number"] > 1e5


@pytest.mark.parametrize(("n", "width"), [(60, 30), (30, 60)])
def test_figures_do_not_change_under_rotation_and_scale_nor_most_under_a_shift(n, width):
    x = normal(n, width) * torch.linspace(0.2, 3, width) + 1
    turn = torch.linalg.qr(normal(width, width, seed=2))[0]
    wanted = figures(x)
    assert figures(x @ turn) == pytest.approx(wanted, rel=1e-8)
    assert figures(1e-3 * x) == pytest.approx(wanted, rel=1e-8)
    shifted = figures(x + 3)
    apart = {"rankme", "mean_to_spread"}
    assert {k: v for k, v in shifted.items() if k not in apart} == pytest.approx(
        {k: v for k, v in wanted.items() if k not in apart}, rel=1e-8
    )
    assert all(abs(shifted[name] - wanted[name]) > 0.01 for name in apart)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "width"), [(7, 8), (1000, 8)])
def test_constant_features_have_the_mean_and_nothing_else(n, width, dtype):
    got = figures(torch.linspace(0.3, 10.3, width, dtype=dtype).expand(n, -1))
    assert got.pop("rankme") == pytest.approx(1, abs=1e-5)
    ranks = {"effective_rank", "entropy_rank", "stable_rank", "collision_entropy", "von_neumann_entropy"}
    assert got == dict.fromkeys(ranks, 0.0)
    assert figures(torch.zeros(n, width, dtype=dtype))["rankme"] == 0.0


@pytest.mark.parametrize(("n", "width"), [(40, 12), (12, 40), (30, 30)])
def test_rankme_is_that_of_the_singular_values_and_is_not_centred(n, width):
    x = normal(n, width) + 2
    s = torch.linalg.svdvals(x)
    p = s / s.sum()
    assert rankme(second_moment_spectrum(x)) == pytest.approx(math.exp(float(-(p * p.log()).sum())), rel=1e-9)
    assert rankme(second_moment_spectrum(x - x.mean(0))) > rankme(second_moment_spectrum(x)) + 1


@pytest.mark.parametrize("seed", range(5))
def test_ranks_and_entropies_are_in_order(seed):
    eigenvalues = normal(20, seed=seed).abs().sort(descending=True)[0]
    assert stable_rank(eigenvalues) <= participation_ratio(eigenvalues) * (1 + 1e-9)
    assert 1 <= participation_ratio(eigenvalues) <= entropy_rank(eigenvalues) <= 20
    assert 0 <= collision_entropy(eigenvalues) <= von_neumann_entropy(eigenvalues) <= math.log(20)


def test_zeros_at_the_end_of_a_spectrum_change_nothing():
    eigenvalues = torch.arange(1, 31).double() ** -1.5
    more = torch.cat([eigenvalues, torch.zeros(50).double()])
    ways = participation_ratio, entropy_rank, collision_entropy, von_neumann_entropy, stable_rank, condition_number
    for way in (*ways, power_law_exponent):
        assert way(more) == pytest.approx(way(eigenvalues), rel=1e-12)


def batches(x: torch.Tensor, *sizes: int) -> Moments:
    return sum(map(Moments.of, x.split(sizes)), Moments.none(x.shape[1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize(("width", "sizes"), [(6, (1, 50, 3, 46)), (60, (7, 1, 22)), (30, (100,))])
def test_moments_of_batches_are_those_of_the_whole(width, sizes, offset, dtype):
    x = (normal(sum(sizes), width) * torch.linspace(0.5, 2, width) + offset).to(dtype)
    got, whole = batches(x, *sizes), x.double()
    centred = whole - whole.mean(0)
    assert got.count == len(x)
    torch.testing.assert_close(got.mean_F, whole.mean(0), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(got.scatter_FF, centred.T @ centred, rtol=1e-9, atol=1e-9)
    k = min(len(x), width)
    torch.testing.assert_close(got.covariance_spectrum()[:k], covariance_spectrum(x), rtol=1e-9, atol=1e-9)
    assert (got.covariance_spectrum()[k:] < 1e-10 * got.covariance_spectrum()[0]).all()
    assert got.summary() == pytest.approx(figures(x), rel=1e-6)


def test_moments_do_not_depend_on_how_they_are_joined():
    a, b, c = (Moments.of(normal(n, 5, seed=n) + n) for n in (4, 9, 30))
    for one, other in (((a + b) + c, a + (b + c)), (a + b, b + a)):
        assert one.count == other.count
        torch.testing.assert_close(one.mean_F, other.mean_F, rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(one.scatter_FF, other.scatter_FF, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments_of_constant_features_have_no_spectrum(dtype):
    x = torch.linspace(0.3, 1000.3, 8, dtype=dtype).expand(90, -1)
    assert (batches(x, 30, 7, 53).covariance_spectrum() == 0).all()
    assert (Moments.none(8).covariance_spectrum() == 0).all()


def test_the_second_moment_is_the_covariance_and_the_mean():
    x = normal(50, 4) + 3
    whole = torch.linalg.eigvalsh(torch.cov(x.T, correction=0) + torch.outer(x.mean(0), x.mean(0))).flip(0)
    torch.testing.assert_close(second_moment_spectrum(x), whole)
