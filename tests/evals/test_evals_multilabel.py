"""Several labels an image: mean average precision beside the controls, and a verdict by it."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from small_data import dataset, images, spec

from frossl.core.types import Features, UserError
from frossl.data.types import Split
from frossl.evals import METRICS, defaults, measure
from frossl.evals.extract import Extractor
from frossl.evals.linear import fit, predict
from frossl.evals.multilabel import mean_average_precision, multilabel, one_vs_rest
from frossl.evals.suite import evaluate, untrained_encoder
from frossl.evals.verdict import verdict
from frossl.views.recipes import View


def features(count: int = 300, noise: float = 0.5) -> Features:
    """Four labels, each where one direction is positive; the last is rare."""
    sides = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(count, 6, generator=generator)
        noisy = x[:, :4] + noise * torch.randn(count, 4, generator=generator)
        sides += [x, (noisy > torch.tensor([0.0, 0.0, 0.5, 1.5])).long()]
    return Features(sides[0], sides[2], sides[1], sides[3])


def test_weights_are_those_of_scikit_learn_for_each_label():
    of = features()
    x, y = of.train_NF, of.train_labels.float()
    w = fit(x, y, 4, 0.01, None, one_vs_rest)
    for k in range(4):
        model = LogisticRegression(C=1 / (2 * 0.01 * len(x)), tol=1e-8).fit(x.numpy(), y[:, k].numpy())
        torch.testing.assert_close(w[k, :-1], torch.from_numpy(model.coef_[0]).float(), atol=0.02, rtol=0.02)
    precision = average_precision_score(of.test_labels, predict(of.test_NF, w), average="macro")
    assert mean_average_precision(predict(of.test_NF, w), of.test_labels)["map"] == pytest.approx(precision)


def test_features_that_tell_labels_are_far_above_those_that_do_not():
    of = features()
    got, shuffled = multilabel(of), multilabel(Features(of.train_NF, of.test_NF.roll(7, 0), *labels(of)))
    shares = of.test_labels.double().mean(0).mean().item()
    assert got["map_low"] < got["map"] < got["map_high"]
    assert got["map"] > 0.8
    assert shuffled["map"] == pytest.approx(shares, abs=0.1)
    assert multilabel(Features(torch.zeros(300, 1), torch.zeros(300, 1), *labels(of)))["map"] == pytest.approx(shares)


def labels(of: Features) -> tuple[torch.Tensor, torch.Tensor]:
    return of.train_labels, of.test_labels


def test_labels_that_no_held_out_image_has_and_images_without_labels_are_left_out():
    of = features()
    never = Features(of.train_NF, of.test_NF, of.train_labels, of.test_labels * torch.tensor([1, 1, 1, 0]))
    three = Features(of.train_NF, of.test_NF, of.train_labels[:, :3], of.test_labels[:, :3])
    assert multilabel(never)["map"] == pytest.approx(multilabel(three)["map"], abs=0.01)
    unknown = of.test_labels.clone()
    unknown[100:] = -1
    few = Features(of.train_NF, of.test_NF[:100], of.train_labels, of.test_labels[:100])
    assert multilabel(Features(of.train_NF, of.test_NF, of.train_labels, unknown)) == multilabel(few)


def test_metrics_of_classes_are_not_measured():
    of = features()
    assert measure(of, ["knn", "regression", "multilabel"]).keys() == {"map", "map_low", "map_high"}
    with pytest.raises(UserError, match="needs classes"):
        METRICS["linear"].measure(of)


def test_an_encoder_is_judged_beside_its_controls_and_the_shares_of_labels():
    """Labels are whether the left and the right half are bright."""

    def split(count: int, seed: int) -> Split:
        several = torch.randint(0, 2, (count, 2), generator=torch.Generator().manual_seed(seed))
        lit = several.repeat_interleave(8, dim=1)[:, None, None]
        return Split(images(count, seed) // 2 + (100 * lit).byte(), several)

    data = dataset(split(200, 0), split(60, 1))
    data = data.__class__(**(data.__dict__ | {"classes": (), "tags": ("left", "right")}))
    recipe, log = (View(count=2, size=16),), []
    how = {"seed": 0, "recipe": recipe, "protocols": defaults("evaluate"), "log": log.append}
    got = evaluate(untrained_encoder(spec(), 5), spec(), data, Extractor(), **how)
    assert (got.targets, list(got.arms)) == ("multilabel", ["pretrained", "untrained", "raw pixels", "label shares"])
    assert got.arms["raw pixels"]["map"] > 0.95
    assert got.arms["label shares"]["map"] == pytest.approx(data.test.labels.double().mean().item(), abs=0.01)
    assert all("knn" not in values for values in got.arms.values())
    assert "mAP " in verdict(got)
