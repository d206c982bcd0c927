from __future__ import annotations

import re

import pytest
import torch
from small_data import dark_and_bright, dataset, images, spec
from torch import nn

import frossl.evals.finetune as finetuning
import frossl.evals.learning as learning
from frossl.core.types import UserError
from frossl.data.types import Split
from frossl.evals import METRICS, Subject
from frossl.evals.extract import Extractor
from frossl.evals.finetune import finetune
from frossl.views.recipes import View

RECIPE = (View(count=2, size=16, scale=(0.5, 0.8), flip=0.0), View(count=3, size=8))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(finetuning, "LEAST", 30)
    monkeypatch.setattr(finetuning, "BATCH", 8)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return spec().build().eval()


def subject(encoder: nn.Module, train: Split, test: Split, log=lambda message: None) -> Subject:
    return Subject(encoder, spec(), dataset(train, test), Extractor(), RECIPE, seed=0, log=log)


def striped(count: int, seed: int = 0) -> Split:
    """Noise with horizontal or vertical stripes: of equal brightness, so that the encoder must learn to see them."""
    x, labels = images(count, seed) // 4, torch.arange(count) % 2
    x[labels == 0, :, ::2] += 150
    x[labels == 1, :, :, ::2] += 150
    return Split(x, labels)


def test_the_encoder_learns_and_the_one_that_was_given_stays_as_it_was(encoder):
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    state = torch.get_rng_state()
    got = finetune(subject(encoder, striped(96), striped(40, seed=1)), rates=(5e-3,))
    assert got["finetune"] > 0.9
    assert got["finetune_low"] <= got["finetune"] <= got["finetune_high"]
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert all(p.grad is None for p in encoder.parameters())
    assert not encoder.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.usefixtures("fresh_memory_is_nan")
def test_it_learns_in_bf16_where_maps_shrink_to_one_pixel():
    torch.manual_seed(0)
    data = dataset(dark_and_bright(96), dark_and_bright(40, seed=1))
    small = Subject(spec(8).build(), spec(8), data, Extractor(half=torch.bfloat16), RECIPE, seed=0)
    assert finetune(small, rates=(5e-3,))["finetune"] > 0.9


def test_wrong_labels_are_learned_as_they_are(encoder):
    train = striped(96)
    got = finetune(subject(encoder, Split(train.images, 1 - train.labels), striped(40, seed=1)), rates=(5e-3,))
    assert got["finetune"] < 0.1


def test_the_rate_is_chosen_on_train_images_and_not_on_held_out_ones(encoder):
    test = striped(40, seed=1)
    got = finetune(subject(encoder, striped(96), Split(test.images, 1 - test.labels)), rates=(1e-12, 5e-3))
    assert got["finetune_rate"] == 5e-3
    assert got["finetune"] < 0.1


def test_the_same_twice_whatever_the_global_generator(encoder):
    hard = Split(images(40), torch.arange(40) % 2), Split(images(30, seed=1), torch.arange(30) % 2)
    one = finetune(subject(encoder, *hard), rates=(1e-3,))
    torch.manual_seed(9)
    assert finetune(subject(encoder, *hard), rates=(1e-3,)) == one


def test_a_share_of_the_labels_is_that_many_of_each_class(encoder, monkeypatch):
    seen, rates = [], []
    batches, optimizer = learning.training_batches, finetuning.build_optimizer

    def watched_batches(data, *what, **how):
        seen.append(data.train.labels.bincount().tolist())
        return batches(data, *what, **how)

    def watched_optimizer(*what, lr, **how):
        rates.append(lr)
        return optimizer(*what, lr=lr, **how)

    monkeypatch.setattr(learning, "training_batches", watched_batches)
    monkeypatch.setattr(finetuning, "build_optimizer", watched_optimizer)
    train = Split(torch.cat([images(60), images(4, seed=5)]), torch.tensor([0] * 40 + [1] * 20 + [-1] * 4))
    got = finetune(subject(encoder, train, dark_and_bright(10)), percent=10, rates=(1e-3, 1e-2))
    assert got.keys() >= {f"finetune_10pct{end}" for end in ("", "_low", "_high", "_rate", "_balanced")}
    assert rates == [1e-3, 1e-2, got["finetune_10pct_rate"]]
    assert [sum(counts) for counts in seen] == [5, 5, 6]
    assert seen[-1] == [4, 2]


def test_views_are_crops_and_flips_of_the_run_at_the_size_of_the_encoder(encoder, monkeypatch):
    recipes, batches = [], learning.training_batches

    def watched(data, recipe, **options):
        recipes.append(recipe)
        return batches(data, recipe, **options)

    monkeypatch.setattr(learning, "training_batches", watched)
    finetune(subject(encoder, dark_and_bright(20), dark_and_bright(10, seed=1)), rates=(1e-3,))
    assert {(r[0].size, r[0].scale, r[0].flip, r[0].jitter, r[0].count, len(r)) for r in recipes} == {
        (16, (0.5, 1.0), 0.0, 0.0, 1, 1)
    }


def test_the_time_left_is_told_and_falls(encoder, monkeypatch):
    ticks = iter(range(10_000))
    monkeypatch.setattr("frossl.evals.learning.time.perf_counter", lambda: 60.0 * next(ticks))
    said: list[str] = []
    finetune(subject(encoder, dark_and_bright(20), dark_and_bright(10, seed=1), said.append), rates=(1e-3, 1e-2))
    assert len(said) == 3
    assert "learning rate 0.001" in said[0]
    # Two readings of the clock, a minute apart, span five steps: 30 steps take 6 minutes.
    assert [int(re.search(r"about (\d+) min", text)[1]) for text in said] == [18, 12, 6]


def test_too_few_labels_are_said(encoder):
    with pytest.raises(UserError, match=r"at least 3 .*got 2"):
        finetune(subject(encoder, dark_and_bright(2), dark_and_bright(10)))
    with pytest.raises(UserError, match="needs labels"):
        finetune(subject(encoder, Split(images(9)), dark_and_bright(10)))


def test_cards_say_the_share_of_labels():
    assert "100 % of" in METRICS["finetune"].protocol
    assert " 10 % of" in METRICS["finetune-10pct"].protocol
    assert " 1 % of" in METRICS["finetune-1pct"].protocol
