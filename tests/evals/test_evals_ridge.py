from __future__ import annotations

import pytest
import torch
from small_data import gaussian_classes

from frossl.core.types import Features, UserError
from frossl.evals.ridge import ridge, ridge_solver


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n", "width"), [(40, 8), (8, 40), (12, 12)])
@pytest.mark.parametrize("penalty", [1e-4, 0.1, 10.0])
def test_weights_solve_the_normal_equations_whichever_matrix_is_smaller(penalty, n, width):
    x, y = normal(n, width), normal(n, 3, seed=1)
    wanted = torch.linalg.solve(x.T @ x / n + penalty * torch.eye(width).double(), x.T @ y / n)
    torch.testing.assert_close(ridge_solver(x, y)(penalty), wanted, rtol=1e-7, atol=1e-9)


def features(apart: float, per_class: int = 40, width: int = 12) -> Features:
    x, y = gaussian_classes(per_class, width=width, apart=apart)
    test_x, test_y = gaussian_classes(100, width=width, apart=apart, seed=1)
    return Features(x, test_x, y, test_y, ("a", "b", "c"))


@pytest.mark.parametrize("width", [12, 200])
def test_separable_classes_are_told_apart_with_fewer_and_with_more_features_than_images(width):
    got = ridge(features(12.0, width=width))
    assert got.keys() >= {"ridge", "ridge_low", "ridge_high", "ridge_balanced"}
    assert got["ridge"] > (0.98 if width < 120 else 0.9)
    assert got["ridge_low"] <= got["ridge"] <= got["ridge_high"]


def test_labels_without_a_reason_are_at_chance():
    assert abs(ridge(features(0.0))["ridge"] - 1 / 3) < 0.1


def test_scales_and_shifts_of_columns_do_not_matter():
    f = features(2.0)
    scale = torch.logspace(-2, 2, 12)
    moved = Features(scale * f.train_NF + 5, scale * f.test_NF + 5, f.train_labels, f.test_labels, f.classes)
    assert ridge(moved)["ridge"] == pytest.approx(ridge(f)["ridge"], abs=0.01)


def test_classes_of_unequal_size_have_a_bias():
    """Features that say nothing leave the most frequent class."""
    y = torch.tensor([0] * 10 + [1] * 30)
    zeros = torch.zeros(40, 4)
    assert ridge(Features(zeros, zeros, y, y, ("a", "b")))["ridge"] == 0.75


def test_a_class_that_no_training_image_has_and_images_without_label():
    f = features(8.0)
    few = Features(f.train_NF, f.test_NF, f.train_labels.masked_fill(f.train_labels == 2, -1), f.test_labels, f.classes)
    assert ridge(few)["ridge"] == pytest.approx(2 / 3, abs=0.03)


def test_one_image_is_too_few():
    x, y = torch.ones(1, 3), torch.zeros(1, dtype=torch.long)
    with pytest.raises(UserError, match=r"at least 2 labelled.*got 1"):
        ridge(Features(x, x, y, y, ("a",)))
