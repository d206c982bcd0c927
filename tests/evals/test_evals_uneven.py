"""Classes of uneven size: balanced accuracy, the guess of the largest class, and which of them decides."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from small_data import dataset, images, spec

from frossl.core.types import Features
from frossl.data.types import Split
from frossl.evals import METRICS
from frossl.evals.balanced import balanced_accuracy
from frossl.evals.extract import Extractor
from frossl.evals.guess import GUESSES
from frossl.evals.suite import Evaluation, evaluate, untrained_encoder
from frossl.evals.verdict import outcome, verdict
from frossl.report.arms import arms_of, evaluation_table
from frossl.views.recipes import View

LARGEST = GUESSES["classes"]


def mostly_one_class(count: int, seed: int = 0) -> Split:
    """Noise of which 95 % is called class 0 and 5 % class 1: nothing in an image tells which."""
    return Split(images(count, seed), (torch.arange(count) % 20 == 7).long())


@pytest.mark.parametrize("classes", [2, 5])
def test_balanced_accuracy_is_that_of_scikit_learn_within_its_interval(classes):
    generator = torch.Generator().manual_seed(0)
    y = (torch.rand(300, generator=generator) ** 3 * classes).long()  # most are 0
    given = torch.where(torch.rand(300, generator=generator) < 0.6, y, 0)
    got = balanced_accuracy("x", given == y, y)
    assert got["x"] == pytest.approx(balanced_accuracy_score(y, given))
    assert got["x_low"] < got["x"] < got["x_high"]


def test_the_interval_of_one_class_is_wilsons_and_a_class_without_images_does_not_count():
    from scipy.stats import binomtest

    right = torch.arange(40) < 30
    got = balanced_accuracy("x", right, torch.full((40,), 3))
    ends = binomtest(30, 40).proportion_ci(method="wilson")
    assert (got["x_low"], got["x_high"]) == pytest.approx((ends.low, ends.high), abs=1e-6)


@pytest.mark.parametrize("name", ["knn", "linear", "fewshot", "ridge"])
def test_metrics_of_classes_tell_the_balanced_accuracy_too(name):
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
    y = (torch.arange(200) % 10 == 0).long()
    got = METRICS[name].measure(Features(x, x.flip(0), y, y.flip(0), ("a", "b")))
    (key,) = (k for k in got if k.endswith("_balanced"))
    assert got[f"{key}_low"] <= got[key] <= got[f"{key}_high"]
    assert key in METRICS[name].columns


def test_features_that_tell_nothing_are_not_praised_for_the_share_of_the_largest_class():
    data = dataset(mostly_one_class(200), mostly_one_class(100, seed=1))
    encoder = untrained_encoder(spec(), 5)
    recipe = (View(count=2, size=16),)
    got = evaluate(encoder, spec(), data, Extractor(), seed=0, recipe=recipe, protocols=("knn", "linear"))
    assert got.arms["pretrained"]["knn"] >= 0.9
    assert got.arms[LARGEST]["knn"] == got.arms[LARGEST]["linear"] == pytest.approx(0.95)
    assert got.arms[LARGEST]["knn_balanced"] == pytest.approx(0.5)
    assert got.uneven
    found = outcome(got)
    assert not found.helped
    assert "bal." in found.gains
    said = verdict(got)
    assert "largest class has 95%" in said
    assert "not clearly better than guessing" in said
    table = evaluation_table(arms_of([("run", got)]))
    assert {"kNN", "kNN, balanced", "linear probe, balanced"} <= set(table.columns)
    assert [row[0].value for row in table.rows][-1] == LARGEST


def arms(largest: float, even: float, **pretrained: float) -> Evaluation:
    guess = {"knn": largest, "knn_balanced": even}
    untrained = {"knn": 0.95, "knn_balanced": 0.5, "knn_balanced_low": 0.48, "knn_balanced_high": 0.52}
    return Evaluation({"pretrained": pretrained, "untrained": untrained, LARGEST: guess}, {}, 2000)


def test_rarer_classes_decide_although_fewer_answers_are_right():
    got = arms(0.95, 0.5, knn=0.93, knn_balanced=0.8, knn_balanced_low=0.75, knn_balanced_high=0.85)
    assert outcome(got).headline == "Pretraining helped"
    assert "kNN bal. +30.0 points" in verdict(got)


def test_of_even_classes_accuracy_decides_and_balanced_accuracy_is_not_shown():
    got = arms(0.55, 0.5, knn=0.99, knn_balanced=0.4)
    assert not got.uneven
    assert outcome(got).gains == "kNN +4.0 points"
    assert "knn_balanced" not in got.shown()["pretrained"]
    assert not any("balanced" in column for column in evaluation_table(arms_of([("", got)])).columns)


@pytest.mark.parametrize(("largest", "classes", "uneven"), [(0.61, 2, True), (0.19, 10, False), (0.21, 10, True)])
def test_classes_are_uneven_beyond_twice_the_even_share_or_sixty_percent(largest, classes, uneven):
    assert arms(largest, 1 / classes, knn=0.5, knn_balanced=0.5).uneven is uneven


def test_what_is_below_the_largest_class_falls_short_of_it():
    got = Evaluation({"pretrained": {"knn": 0.5}, "untrained": {"knn": 0.4}, LARGEST: {"knn": 0.7}}, {}, 1000)
    assert outcome(got).headline == "Pretraining fell short of guessing the largest class"
