"""Labels that are values: ridge regression beside the controls, and a verdict by R²."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score
from small_data import dataset, images, spec

from frossl.core.types import Features, UserError
from frossl.data.types import Split
from frossl.evals import METRICS, defaults, measure
from frossl.evals.extract import Extractor
from frossl.evals.regression import explained, regression
from frossl.evals.ridge import PENALTIES, ridge_fit
from frossl.evals.suite import Evaluation, evaluate, untrained_encoder
from frossl.evals.verdict import outcome, verdict
from frossl.views.recipes import View


def linear_values(count: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 10, generator=generator)
    return x, 50 + 10 * x[:, 0] - 5 * x[:, 1] + noise * torch.randn(count, generator=generator)


def features(noise: float, train: int = 300, test: int = 200) -> Features:
    (x, y), (test_x, test_y) = linear_values(train, noise), linear_values(test, noise, seed=1)
    return Features(x, test_x, y, test_y)


def test_figures_are_those_of_scikit_learn_for_the_penalty_that_was_chosen():
    of = features(4.0)
    got = regression(of)
    std, mean = of.train_NF.std(0, correction=0), of.train_NF.mean(0)
    x, asked = (((side - mean) / std).double() for side in (of.train_NF, of.test_NF))
    fits = [ridge_fit(x, of.train_labels[:, None].double(), asked)(penalty)[:, 0] for penalty in PENALTIES]
    pairs = [(r2_score(of.test_labels, fit), mean_absolute_error(of.test_labels, fit)) for fit in fits]
    assert any((got["r2"], got["mae"]) == pytest.approx(pair, rel=1e-4) for pair in pairs)
    assert got["r2"] > 0.8
    assert all(got[f"{name}_low"] < got[name] < got[f"{name}_high"] for name in ("r2", "mae"))
    errors = torch.tensor([3.0, 0.0, -1.0])
    values = torch.tensor([1.0, 2.0, 6.0])
    assert explained(errors, values)["r2"] == pytest.approx(r2_score(values, values + errors))


def test_features_without_a_reason_explain_nothing_and_values_that_are_all_alike_have_no_r2():
    of = features(4.0)
    shuffled = Features(of.train_NF.roll(7, 0), of.test_NF.roll(7, 0), of.train_labels, of.test_labels)
    assert -0.2 < regression(shuffled)["r2"] < 0.1
    alike = Features(of.train_NF, of.test_NF, of.train_labels, torch.full((200,), 3.0))
    assert regression(alike).keys() == {"mae", "mae_low", "mae_high"}


def test_images_whose_value_is_unknown_do_not_count():
    of = features(4.0)
    x, y = torch.cat([of.train_NF, torch.full((5, 10), 9.0)]), torch.cat([of.train_labels, torch.full((5,), math.nan)])
    assert regression(Features(x, of.test_NF, y, of.test_labels)) == regression(of)


def test_metrics_of_classes_are_not_measured_of_values_nor_the_other_way_round():
    of = features(4.0)
    assert measure(of, ["knn", "linear", "regression"]).keys() == regression(of).keys()
    with pytest.raises(UserError, match="needs classes"):
        METRICS["knn"].measure(of)
    with pytest.raises(UserError, match="needs values"):
        regression(Features(of.train_NF, of.test_NF, torch.ones(300).long(), torch.ones(200).long()))
    with pytest.raises(UserError, match=r"at least 2.*got 1"):
        regression(Features(of.train_NF[:1], of.test_NF, of.train_labels[:1], of.test_labels))


@pytest.fixture(scope="module")
def of_brightness() -> Evaluation:
    """An encoder beside its controls, for images whose value is how bright they are."""

    def split(count: int, seed: int) -> Split:
        value = torch.rand(count, generator=torch.Generator().manual_seed(seed)) * 60 + 20
        return Split((images(count, seed) * (value / 80)[:, None, None, None]).byte(), value.round().double())

    data = dataset(split(240, 0), split(60, 1))
    data = data.__class__(**(data.__dict__ | {"classes": ()}))
    encoder, recipe = untrained_encoder(spec(), 5), (View(count=2, size=16),)
    return evaluate(encoder, spec(), data, Extractor(), seed=0, recipe=recipe, protocols=defaults("evaluate"))


def test_values_are_evaluated_beside_all_controls_and_the_mean(of_brightness):
    got = of_brightness
    assert list(got.arms) == ["pretrained", "untrained", "raw pixels", "training mean"]
    assert got.targets == "values"
    assert all({"r2", "mae"} <= values.keys() for values in got.arms.values())
    assert not any("knn" in values or "linear" in values for values in got.arms.values())
    assert {"regression", "rank"} <= got.protocols.keys()
    assert got.arms["training mean"]["r2"] == pytest.approx(0, abs=0.05)
    assert got.arms["training mean"]["mae"] > got.arms["raw pixels"]["mae"]
    assert got.arms["raw pixels"]["r2"] > 0.5
    assert "R²" in verdict(got)


def scored(value: float, margin: float = 0.03) -> dict[str, float]:
    return {"r2": value, "r2_low": value - margin, "r2_high": value + margin}


@pytest.mark.parametrize(("value", "headline"), [(0.7, "helped"), (0.62, "no clear difference"), (0.4, "did harm")])
def test_the_verdict_goes_by_r2_and_its_interval(value, headline):
    arms = {"pretrained": scored(value), "untrained": scored(0.6), "training mean": scored(-0.01)}
    got = Evaluation(arms, {}, 500, targets="values")
    assert outcome(got).headline.endswith(headline)
    assert not outcome(got).notes


def test_what_is_no_better_than_the_mean_is_said_to_be():
    arms = {"pretrained": scored(0.01), "untrained": scored(0.0), "training mean": scored(-0.01)}
    said = verdict(Evaluation(arms, {}, 500, targets="values"))
    assert "not clearly better than guessing the training mean" in said
    nothing = {"pretrained": {}, "untrained": {}, "raw pixels": {}}
    assert "judged by regression:" in verdict(Evaluation(nothing, {}, 500, targets="values"))
