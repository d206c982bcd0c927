from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from small_data import gaussian_classes

from frossl.core.types import Features
from frossl.evals.linear import (
    PENALTIES,
    fewshot,
    fit,
    label_efficiency,
    linear,
    predict,
    principal,
    select_penalty,
    standardise,
)


def objective(w, x, y, penalty):
    """Cross-entropy + penalty |weights|^2 without the bias, and its gradient, in float64."""
    scores = x @ w[:, :-1].T + w[:, -1]
    scores = scores - scores.max(1, keepdims=True)
    log_sum = np.log(np.exp(scores).sum(1))
    value = (log_sum - scores[np.arange(len(y)), y]).mean() + penalty * (w[:, :-1] ** 2).sum()
    p = np.exp(scores - log_sum[:, None])
    p[np.arange(len(y)), y] -= 1
    gradient = np.concatenate([p.T @ x / len(y) + 2 * penalty * w[:, :-1], p.mean(0)[:, None]], 1)
    return value, gradient


def optimum(x, y, classes, penalty) -> np.ndarray:
    x, y, shape = x.double().numpy(), y.numpy(), (classes, x.shape[1] + 1)

    def flat(w):
        value, gradient = objective(w.reshape(shape), x, y, penalty)
        return value, gradient.ravel()

    found = minimize(
        flat,
        np.zeros(np.prod(shape)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20_000, "maxfun": 20_000, "ftol": 1e-14, "gtol": 1e-8},
    )
    return found.x.reshape(shape)


def correlated(apart: float):
    x, y = gaussian_classes(40, apart=apart)
    mix = torch.randn(12, 12, generator=torch.Generator().manual_seed(9))
    return principal(*standardise(x @ mix + 3))[0], y


@pytest.mark.parametrize("apart", [1.5, 8.0])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_fit_reaches_the_optimum(penalty, apart):
    x, y = correlated(apart)
    got = fit(x, y, 3, penalty).double().numpy()
    data = x.double().numpy(), y.numpy(), penalty
    best = objective(optimum(x, y, 3, penalty), *data)[0]
    assert objective(got, *data)[0] - best < 1e-4


@pytest.mark.parametrize("penalty", [0.1, 1e-3])
def test_fit_reaches_the_optimum_from_any_start(penalty):
    x, y = correlated(1.5)
    start = 3 * torch.randn(3, 13, generator=torch.Generator().manual_seed(1))
    kept = start.clone()
    got = fit(x, y, 3, penalty, start).double().numpy()
    data = x.double().numpy(), y.numpy(), penalty
    assert objective(got, *data)[0] - objective(optimum(x, y, 3, penalty), *data)[0] < 1e-4
    assert torch.equal(start, kept)


def test_the_bias_is_free_and_learns_the_shares_of_classes():
    y = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    w = fit(torch.zeros(100, 4), y, 3, 1.0)
    assert (w[:, :-1] == 0).all()
    torch.testing.assert_close(w[:, -1].softmax(0), torch.tensor([0.6, 0.3, 0.1]), atol=3e-3, rtol=0)


@pytest.mark.parametrize("penalty", [1.0, 1e-2])
def test_principal_axes_leave_the_scores_of_the_optimum_as_they_are(penalty):
    x, y = gaussian_classes(40, apart=1.5)
    test_x, _ = gaussian_classes(10, apart=1.5, seed=1)
    x, test_x = standardise(x @ torch.randn(12, 12, generator=torch.Generator().manual_seed(9)), test_x)
    turned, turned_test = principal(x, test_x)
    before = test_x.double().numpy() @ optimum(x, y, 3, penalty)[:, :-1].T
    after = turned_test.double().numpy() @ optimum(turned, y, 3, penalty)[:, :-1].T
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_principal_axes_are_a_rotation_without_correlation():
    x, _ = gaussian_classes(40, apart=1.5)
    x = x @ torch.randn(12, 12, generator=torch.Generator().manual_seed(9))
    turned, other = principal(x, x[:7])
    torch.testing.assert_close(turned @ turned.T, x @ x.T, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(other, turned[:7])
    second = turned.T @ turned / len(x)
    assert (second - second.diag().diag()).abs().max() < 1e-5 * second.diag().max()


def test_standardise_uses_the_mean_and_deviation_of_the_first():
    x, other = torch.tensor([[0.0, 1.0], [2.0, 5.0]]), torch.tensor([[3.0, 3.0]])
    first, second = standardise(x, other)
    torch.testing.assert_close(first, torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    torch.testing.assert_close(second, torch.tensor([[2.0, 0.0]]))


@pytest.mark.parametrize("n", [3, 100, 5000])
@pytest.mark.parametrize("constant", [0.0, 0.1, -1.0, 1000.3, 3.3e4, 1e-20])
def test_constant_columns_become_zero_and_others_do_not(constant, n):
    x = torch.stack([torch.full((n,), constant), constant + torch.linspace(-1, 1, n)], 1)
    got, other = standardise(x, x + 1)
    assert (got[:, 0] == 0).all()
    assert (other[:, 0] == 0).all()
    assert got.isfinite().all()
    assert other.isfinite().all()
    torch.testing.assert_close(got[:, 1].std(correction=0), torch.tensor(1.0), atol=1e-2, rtol=0)


def test_small_columns_are_not_mistaken_for_constant_ones():
    x = 1e-6 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(standardise(x)[0].std(0, correction=0), torch.ones(3))


def test_a_strong_penalty_is_chosen_for_noise_more_often_than_not():
    """Nothing can be learned, so a weak penalty is never better but by chance; equals must not go to the weak one."""
    chosen = []
    for seed in range(10):
        x, y = gaussian_classes(10, width=30, apart=0.0, seed=seed)
        chosen.append(select_penalty(*principal(*standardise(x)), y, 3)[0])
    assert float(np.median(chosen)) >= 1e-2, chosen


def test_the_weights_are_those_of_the_chosen_penalty_fitted_without_the_validation_samples():
    x, y = correlated(1.5)
    penalty, w = select_penalty(x, y, 3)
    assert penalty in PENALTIES
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[len(x) // 10 :]
    again = fit(x[order], y[order], 3, penalty)
    torch.testing.assert_close(predict(x, w), predict(x, again), atol=0.05, rtol=0.05)


def test_a_penalty_is_chosen_with_which_separable_classes_are_learned():
    x, y = correlated(8.0)
    w = select_penalty(x, y, 3)[1]
    assert (predict(x, w).argmax(1) == y).float().mean() > 0.97


def features(apart: float, per_class: int = 40, width: int = 12) -> Features:
    x, y = gaussian_classes(per_class, width=width, apart=apart)
    test_x, test_y = gaussian_classes(100, width=width, apart=apart, seed=1)
    # Scales and shifts that a probe must not care about.
    scale = torch.logspace(-2, 2, width)
    return Features(scale * x + 5, scale * test_x + 5, y, test_y, ("a", "b", "c"))


def test_probes_tell_separate_classes_apart():
    assert linear(features(8.0))["linear"] > 0.99
    got = fewshot(features(8.0), draws=2)
    assert got["linear_10"] > 0.97
    assert got["linear_10_std"] < 0.03


def test_probes_on_noise_are_near_chance():
    assert abs(linear(features(0.0))["linear"] - 1 / 3) < 0.1
    assert abs(fewshot(features(0.0), draws=2)["linear_10"] - 1 / 3) < 0.1


@pytest.mark.usefixtures("two_penalties")
def test_more_labels_help_and_each_share_has_mean_and_deviation():
    got = label_efficiency(features(2.0), percent=(1.0, 10.0, 50.0), draws=3)
    names = ["linear_1pct", "linear_10pct", "linear_50pct"]
    assert got.keys() >= {f"{name}{end}" for name in names for end in ("", "_std", "_balanced", "_balanced_std")}
    assert got["linear_1pct"] < got["linear_10pct"] < got["linear_50pct"]
    assert got["linear_1pct_std"] > 0
    assert label_efficiency(features(8.0), percent=(10.0,), draws=2)["linear_10pct"] > 0.95
    assert abs(label_efficiency(features(0.0), percent=(10.0,), draws=2)["linear_10pct"] - 1 / 3) < 0.1


@pytest.mark.usefixtures("two_penalties")
@pytest.mark.parametrize("few", [0, 1000])
def test_a_share_is_that_many_labels_of_each_class_and_at_least_one(monkeypatch, few):
    """By cross-validation and by one split, the last fit has all labels."""
    seen = []

    def watched(x, y, *rest):
        seen.append(y.bincount().tolist())
        return fit(x, y, *rest)

    monkeypatch.setattr(sys.modules["frossl.evals.linear"], "FEW", few)
    monkeypatch.setattr(sys.modules["frossl.evals.linear"], "fit", watched)
    label_efficiency(features(2.0), percent=(10.0,), draws=1)
    assert seen[-1] == [4, 4, 4]
    label_efficiency(features(2.0), percent=(0.5,), draws=1)
    assert seen[-1] == [1, 1, 1]


@pytest.mark.usefixtures("two_penalties")
def test_all_labels_are_the_linear_probe(monkeypatch):
    f = features(2.0)
    monkeypatch.setattr(sys.modules["frossl.evals.linear"], "FEW", 0)
    assert label_efficiency(f, percent=(100.0,), draws=1)["linear_100pct"] == pytest.approx(
        linear(f)["linear"], abs=0.02
    )


def test_the_interval_of_the_probe_holds_its_accuracy():
    got = linear(features(2.0))
    assert got.keys() >= {"linear", "linear_low", "linear_high", "linear_balanced"}
    assert 0 < got["linear_low"] < got["linear"] < got["linear_high"] < 1


@pytest.mark.usefixtures("two_penalties")
def test_images_without_a_label_change_nothing():
    f = features(2.0)
    junk = 50 * torch.randn(30, 12, generator=torch.Generator().manual_seed(3))
    none = torch.full((30,), -1)
    more = Features(
        torch.cat([f.train_NF, junk]),
        torch.cat([f.test_NF, junk]),
        torch.cat([f.train_labels, none]),
        torch.cat([f.test_labels, none]),
        f.classes,
    )
    assert linear(more) == linear(f)
    assert fewshot(more, shots=2, draws=2) == fewshot(f, shots=2, draws=2)


@pytest.fixture
def two_penalties(monkeypatch):
    """Fewer fits, for time, where it is not the penalty that is tested."""
    monkeypatch.setattr(sys.modules["frossl.evals.linear"], "PENALTIES", (1e-1, 1e-3))


@pytest.mark.usefixtures("two_penalties")
def test_draws_differ_and_their_mean_and_deviation_are_returned_whatever_the_global_generator():
    f = features(2.0)
    torch.manual_seed(1)
    two = fewshot(f, shots=2, draws=2)
    torch.manual_seed(2)
    three = fewshot(f, shots=2, draws=3)
    assert two.keys() >= {"linear_2", "linear_2_std"}
    assert two["linear_2_std"] > 0
    # Mean and deviation of the first two draws give both of them, up to their order; the third is then known too.
    half = two["linear_2_std"] / 2**0.5
    third = 3 * three["linear_2"] - 2 * two["linear_2"]
    values = [two["linear_2"] - half, two["linear_2"] + half, third]
    assert np.std(values, ddof=1) == pytest.approx(three["linear_2_std"], abs=1e-9)


@pytest.mark.usefixtures("two_penalties")
def test_a_class_with_fewer_images_than_shots_gives_all_it_has():
    f = features(8.0)
    keep = torch.cat([(f.train_labels != 2).nonzero()[:, 0], (f.train_labels == 2).nonzero()[:4, 0]])
    few = Features(f.train_NF[keep], f.test_NF, f.train_labels[keep], f.test_labels, f.classes)
    assert fewshot(few, draws=2)["linear_10"] > 0.9


@pytest.mark.usefixtures("two_penalties")
def test_a_class_that_no_training_image_has_is_not_an_error():
    f = features(8.0)
    keep = f.train_labels != 2
    few = Features(f.train_NF[keep], f.test_NF, f.train_labels[keep], f.test_labels, f.classes)
    assert fewshot(few, shots=3, draws=2)["linear_3"] == pytest.approx(2 / 3, abs=0.08)
    assert linear(few)["linear"] == pytest.approx(2 / 3, abs=0.05)
