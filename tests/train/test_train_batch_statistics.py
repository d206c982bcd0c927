"""Spectra and signs of features of several views, on features whose figures are known."""

from __future__ import annotations

import pytest
import torch

from frossl.core.axes import fold
from frossl.evals.alignment import alignment
from frossl.evals.lidar import lidar
from frossl.evals.spectral import effective_rank, summary
from frossl.train.batch_statistics import SHOWN, batch_statistics, leading, shown_places, spectrum_of


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("views", "n", "width"), [(2, 40, 12), (3, 10, 50)])
def test_the_rank_without_eigenvalues_is_that_of_the_eigenvalues(views, n, width):
    h = normal(views, n, width) * torch.linspace(0.1, 3, width) + 5
    assert batch_statistics(h)["effective_rank"] == pytest.approx(effective_rank(fold(h)), rel=1e-5)


def test_equal_views_have_no_noise_and_unrelated_views_nothing_else():
    x = normal(1, 4000, 8)
    same, other = batch_statistics(x.expand(3, -1, -1)), batch_statistics(normal(3, 4000, 8))
    assert same["view_noise"] == pytest.approx(0, abs=1e-9)
    assert same["least_agreement"] == pytest.approx(1)
    assert other["view_noise"] == pytest.approx(1, abs=0.02)
    assert other["least_agreement"] == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("views", [2, 4])
def test_half_of_the_variance_between_views_is_a_noise_of_half(views):
    h = normal(1, 5000, 8) + normal(views, 5000, 8, seed=1)
    assert batch_statistics(h)["view_noise"] == pytest.approx(0.5, abs=0.02)


def test_a_view_that_is_constant_or_of_other_images_is_seen():
    x = normal(1, 500, 8).expand(4, -1, -1).clone()
    constant, shuffled = x.clone(), x.clone()
    constant[2] = 1.0
    shuffled[1] = x[1].roll(1, 0)
    assert batch_statistics(constant)["least_view"] < 1e-20
    assert batch_statistics(shuffled)["least_view"] == pytest.approx(1)
    assert abs(batch_statistics(shuffled)["least_agreement"]) < 0.1


def test_the_mean_is_told_against_the_spread():
    h = normal(2, 3000, 4) + torch.tensor([30.0, 0, 0, 40.0])
    assert batch_statistics(h)["mean_to_spread"] == pytest.approx(50 / 2, rel=0.02)
    assert batch_statistics(h)["variance"] == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_features_have_no_rank_and_rounding_gives_them_none(dtype):
    h = torch.linspace(0.3, 900.3, 7, dtype=dtype).expand(2, 33, -1)
    assert batch_statistics(h) == {"variance": 0.0, "effective_rank": 0.0}


def test_features_that_are_not_finite_are_not_described():
    h = normal(2, 5, 3)
    h[0, 0, 0] = torch.nan
    assert batch_statistics(h) == spectrum_of(h) == leading(h, 2) == {}


def test_a_spectrum_is_that_of_all_samples_with_everything_that_is_known_of_it():
    h = normal(2, 60, 5) * torch.tensor([3.0, 2, 1, 1, 0.5])
    said = spectrum_of(h)
    x = fold(h)
    covariance = torch.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0)) / 120).flip(0)
    assert said["eigenvalues"] == pytest.approx(covariance.tolist(), rel=1e-5)
    assert said["places"] == [1, 2, 3, 4, 5]
    assert said["variance"] == pytest.approx(covariance.sum().item(), rel=1e-5)
    assert said["alignment"] == pytest.approx(alignment(h), rel=1e-5)
    assert said["lidar"] == pytest.approx(lidar(h), rel=1e-5)
    wanted = summary(covariance, torch.linalg.eigvalsh(x.T @ x / 120).flip(0), x.mean(0))
    assert wanted.keys() <= said.keys()
    assert all(said[name] == pytest.approx(value, rel=1e-4) for name, value in wanted.items())


def test_a_single_view_has_no_figures_of_pairs():
    assert not {"alignment", "lidar"} & spectrum_of(normal(1, 9, 4)).keys()


@pytest.mark.parametrize("count", [1, SHOWN, SHOWN + 1, 512, 2048])
def test_at_most_so_many_eigenvalues_are_told_the_first_and_the_last_among_them(count):
    places = shown_places(count)
    assert len(places) <= SHOWN
    assert (places[0], places[-1]) == (1, count)
    assert places == sorted(set(places))


def test_leading_eigenvalues_come_with_the_whole_variance():
    scales = torch.tensor([4.0, 2.0, 1.0, 0.5])
    x = torch.linalg.qr(normal(50, 5) - normal(50, 5).mean(0))[0]
    x = (x - x.mean(0))[:, :4]
    h = (torch.linalg.qr(x)[0] * (50 * scales).sqrt())[None].expand(2, -1, -1)
    said = leading(h, 2)
    assert said["eigenvalues"] == pytest.approx([4, 2], rel=1e-5)
    assert said["variance"] == pytest.approx(7.5, rel=1e-5)
    assert said["condition_number"] == pytest.approx(8, rel=1e-5)
    assert said["condition_leading"] == pytest.approx(2, rel=1e-5)
    shares = scales / 7.5
    assert said["collision_entropy"] == pytest.approx(-(shares.square().sum()).log().item(), rel=1e-5)
