from __future__ import annotations

import pytest
import torch
from small_data import dark_and_bright, dataset, images, spec

import frossl.evals.augmented as augmented
from frossl.core.types import UserError
from frossl.data.types import Split
from frossl.evals import Subject
from frossl.evals.augmented import augmented_linear
from frossl.evals.extract import Extractor


@pytest.fixture
def encoder():
    """Untrained, with the batch-norm statistics of the data, as in the control arm."""
    torch.manual_seed(0)
    network = spec().build()
    Extractor().settle_batch_norm(network, dark_and_bright(64), spec())
    return network


def probe(encoder, data, seed=0, **options) -> dict[str, float]:
    subject = Subject(encoder, spec(), data, Extractor(), recipe=(), seed=seed)
    return augmented_linear(subject, **{"epochs": 2, "batch": 8, "rates": (0.3,), **options})


def accuracy(*args, **options) -> float:
    return probe(*args, **options)["linear_augmented"]


def test_separable_images_are_learned_and_the_encoder_stays_as_it_was(encoder):
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    data = dataset(dark_and_bright(64), dark_and_bright(32, seed=1))
    assert accuracy(encoder, data, rates=(1.0,)) > 0.9
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert all(p.grad is None for p in encoder.parameters())
    assert not encoder.training


def test_wrong_labels_in_training_give_wrong_answers(encoder):
    train = dark_and_bright(64)
    data = dataset(Split(train.images, 1 - train.labels), dark_and_bright(32, seed=1))
    assert accuracy(encoder, data, rates=(1.0,)) < 0.3


def test_the_rate_is_chosen_on_train_images_and_not_on_held_out_ones(encoder):
    """Held-out labels are turned round: who chose by them would take the rate that learns nothing."""
    train, test = dark_and_bright(64), dark_and_bright(32, seed=1)
    got = probe(encoder, dataset(train, Split(test.images, 1 - test.labels)), rates=(1e-9, 1.0))
    assert got["linear_augmented_rate"] == 1.0
    assert got["linear_augmented"] < 0.1


def test_beside_others_a_rate_gives_what_it_gives_alone(encoder):
    data = dataset(Split(images(64), torch.arange(64) % 2), Split(images(60, seed=1), torch.arange(60) % 2))
    together = probe(encoder, data, rates=(0.03, 0.3, 3.0))
    assert together == probe(encoder, data, rates=(together["linear_augmented_rate"],))


def test_the_validation_images_teach_the_reported_probe_and_not_the_choosing_one(encoder, monkeypatch):
    """If half of the images, all of one class, are kept for validation, none of it is known when choosing."""
    train = dark_and_bright(40)
    bright = train.labels == 1
    monkeypatch.setattr(augmented, "validation_split", lambda n: (bright.nonzero()[:, 0], (~bright).nonzero()[:, 0]))
    got = probe(encoder, dataset(train, dark_and_bright(32, seed=1)), rates=(1e-9, 1.0), epochs=10)
    assert got["linear_augmented_rate"] == 1e-9  # the other one calls everything dark
    assert accuracy(encoder, dataset(train, dark_and_bright(32, seed=1)), rates=(1.0,), epochs=10) > 0.9


def test_images_without_a_label_count_on_neither_side(encoder):
    train, test = dark_and_bright(64), dark_and_bright(32, seed=1)
    junk, none = images(40, seed=2), torch.full((40,), -1)
    data = dataset(train, test)
    more = dataset(
        Split(torch.cat([train.images, junk]), torch.cat([train.labels, none])),
        Split(torch.cat([test.images, junk]), torch.cat([test.labels, none])),
    )
    assert probe(encoder, more) == probe(encoder, data)


def test_the_probe_follows_its_seed_and_not_the_global_generator(encoder):
    hard = dataset(Split(images(64), torch.arange(64) % 2), Split(images(60, seed=1), torch.arange(60) % 2))
    state = torch.get_rng_state()
    one = [accuracy(encoder, hard, seed=seed) for seed in range(6)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert [accuracy(encoder, hard, seed=seed) for seed in range(6)] == one
    assert len(set(one)) > 1


def test_a_batch_larger_than_the_data_is_cut_to_it(encoder):
    data = dataset(dark_and_bright(20), dark_and_bright(32, seed=1))
    assert accuracy(encoder, data, batch=256, epochs=20, rates=(3.0,)) > 0.9


def test_labels_are_needed(encoder):
    with pytest.raises(UserError, match="needs labels"):
        probe(encoder, dataset(Split(images(8)), Split(images(8))))


def test_how_long_it_takes_is_told(encoder, monkeypatch):
    ticks = iter(range(10_000))
    monkeypatch.setattr("frossl.evals.learning.time.perf_counter", lambda: 60.0 * next(ticks))
    said: list[str] = []
    data = dataset(dark_and_bright(64), dark_and_bright(8, seed=1))
    subject = Subject(encoder, spec(), data, Extractor(), recipe=(), seed=0, log=said.append)
    augmented_linear(subject, epochs=10, batch=8, rates=(0.3,))
    (line,) = said
    assert line.startswith("linear_augmented: about 16 min")  # 80 steps, a minute for five
