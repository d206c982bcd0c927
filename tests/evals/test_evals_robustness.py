from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_data import dark_and_bright, dataset, images, spec
from torch import nn

from frossl.data.types import Dataset, Split
from frossl.evals import Subject
from frossl.evals.extract import Extractor, pixels
from frossl.evals.robustness import OPERATIONS, operations, robustness


class Means(nn.Module):
    """The mean of each row of an image, or of each column: (B, 16)."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x):
        return x.mean((1, self.axis))


def measured(encoder: nn.Module, data: Dataset, **changes) -> dict[str, float]:
    fed = replace(spec(), channels=data.channels, mean=data.mean, std=data.std)
    return robustness(Subject(encoder, fed, data, Extractor(), recipe=(), seed=0), **changes)


def coloured(count: int, seed: int = 0) -> Dataset:
    """Noise of three channels."""
    x = torch.cat([images(count, seed=seed + i) for i in range(3)], dim=1)
    plain = dataset(Split(x, torch.arange(count) % 2), Split(x.flip(0), torch.arange(count).flip(0) % 2))
    return replace(plain, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)


def test_means_of_rows_do_not_see_a_flip_and_means_of_columns_do():
    data = dataset(dark_and_bright(40), dark_and_bright(30, seed=1))
    rows, columns = measured(Means(3), data), measured(Means(2), data)
    assert rows["cosine_under_flip"] == pytest.approx(1, abs=1e-5)
    assert rows["knn_under_flip"] == rows["knn_under_nothing"]
    assert columns["cosine_under_flip"] < 0.999


def test_grey_features_do_not_see_that_colour_is_gone_and_colours_do():
    class Grey(nn.Module):
        def forward(self, x):
            weights = torch.tensor([0.2989, 0.587, 0.114])[:, None, None]
            return (x * weights).sum(1).flatten(1)

    class Difference(nn.Module):
        def forward(self, x):
            return (x[:, 0] - x[:, 1]).flatten(1)

    data = coloured(20)
    assert measured(Grey(), data)["cosine_under_gray"] == pytest.approx(1, abs=1e-4)
    # Without colour the difference of channels is zero, so what is left is the mean of all, taken away.
    assert abs(measured(Difference(), data)["cosine_under_gray"]) < 0.6


def test_features_that_are_the_same_for_all_images_are_not_called_robust():
    class Nearly(nn.Module):
        def forward(self, x):
            return 100 + x.flatten(1)

    data = dataset(dark_and_bright(40), dark_and_bright(30, seed=1))
    network, _ = pixels(spec())
    got, plain = measured(Nearly(), data), measured(network, data)
    assert got["cosine_under_solarize"] == pytest.approx(plain["cosine_under_solarize"], abs=1e-2)


def test_solarized_images_of_two_levels_are_taken_for_the_other_class():
    """Dark is below 80 and bright above 175: solarized, bright ones become dark, and dark ones stay."""
    data = dataset(dark_and_bright(40), dark_and_bright(30, seed=1))
    network, _ = pixels(spec())
    got = measured(network, data)
    assert got["knn_under_nothing"] == 1.0
    assert got["knn_under_flip"] == 1.0
    assert got["knn_under_solarize"] == pytest.approx(0.5)


def test_every_operation_has_figures_with_intervals_and_nothing_is_plain():
    data = coloured(12)
    network, _ = pixels(replace(spec(), channels=3))
    got = measured(network, data)
    kinds = {f"{kind}_under_{name}" for kind in ("knn", "cosine") for name in OPERATIONS} - {"cosine_under_nothing"}
    assert got.keys() == {f"{kind}{end}" for kind in kinds for end in ("", "_low", "_high")}
    assert got["knn_under_nothing"] == 1.0  # held-out images are those of the bank
    assert all(got[f"{kind}_low"] <= got[kind] <= got[f"{kind}_high"] for kind in kinds)
    assert got["cosine_under_crop_50"] > got["cosine_under_crop_20"] - 0.2
    assert got["cosine_under_blur"] > got["cosine_under_blur_strong"]


def test_grey_images_have_no_colour_to_lose_and_without_labels_there_is_no_knn():
    assert "gray" not in operations(1, 16)
    assert operations(3, 64)["blur"].blur_sigma == (2.0, 2.0)
    network, _ = pixels(spec())
    got = measured(network, dataset(Split(images(12)), Split(images(8, seed=1))))
    assert "cosine_under_flip" in got
    assert not any(name.startswith("knn") for name in got)


def test_at_most_so_many_images_and_the_same_twice():
    data = dataset(dark_and_bright(40), dark_and_bright(30, seed=1))
    network, _ = pixels(spec())
    state = torch.get_rng_state()
    one = measured(network, data, limit=10)
    assert torch.equal(torch.get_rng_state(), state)
    assert one == measured(network, data, limit=10)
    assert one != measured(network, data)
