"""The paper's linear probe: a linear layer on a frozen encoder that sees augmented images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from frossl.core.device import fork_random
from frossl.data.types import Split
from frossl.evals import Column, Subject, metric
from frossl.evals.balanced import with_balanced
from frossl.evals.labels import labelled_images, validation_split
from frossl.evals.learning import crops_and_flips

EPOCHS = 100
DROPS = (60, 80)
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""The span of the paper's configurations, which vary the rate by method."""


@metric(
    "linear-augmented",
    needs_labels=True,
    of_encoder=True,
    protocol=f"linear, augmented: SGD, {EPOCHS} epochs, x0.1 at {' and '.join(map(str, DROPS))}, batch 256, crops of "
    f"8-100 % and flips, frozen encoder; rate per 256 images of {len(RATES)} from {RATES[0]:g} to {RATES[-1]:g} by a "
    "tenth of the train split; intervals: Wilson",
    columns={"linear_augmented": Column("linear (aug.)", "linear probe, augmented", score="accuracy", decides=True)},
    order=50,
)
def augmented_linear(
    subject: Subject, *, rates: tuple[float, ...] = RATES, batch: int = 256, epochs: int = EPOCHS
) -> dict[str, float]:
    """Top-1 and balanced accuracy on held-out images, which are not augmented, and the rate that was chosen.

    The protocol of arXiv 2310.02903, with its rates as a grid. All probes learn in one pass of the encoder, which stays
    in eval mode: for each rate one on all train images, which is reported, and one that never learns from a tenth
    of them, on which the rate is chosen. No held-out image has a say in it.
    """
    spec, data, extractor = subject.spec, subject.data, subject.extractor
    (train, y), (test, test_y) = labelled_images(data.train), labelled_images(data.test)
    validation, _ = validation_split(len(train))
    kept_out = torch.zeros(len(train), dtype=torch.bool)
    kept_out[validation] = True
    batch = min(batch, len(train))
    per_epoch = len(train) // batch
    subject.encoder.eval()
    shape = (2, len(rates), len(data.classes))  # of the scores: all images or nine tenths, rate, class
    probe = _equal_probes(2 * len(rates), spec.features, len(data.classes), subject.seed).to(extractor.device)
    # A loss times a rate is a step of that rate, with momentum too, so that one optimiser serves all probes.
    rate_R = torch.tensor(rates, device=extractor.device)
    optimizer = torch.optim.SGD(probe.parameters(), lr=batch / 256, momentum=0.9)
    drops = [round(epochs * d / EPOCHS) * per_epoch for d in DROPS]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=drops)
    for _, b in crops_and_flips(subject, train, "linear_augmented", batch=batch, steps=epochs * per_epoch):
        h = extractor.encode(subject.encoder, b.views[0][0]).to(extractor.device)
        both = torch.stack([y[b.index_N], y[b.index_N].masked_fill(kept_out[b.index_N], -1)]).to(extractor.device)
        target = both[:, None].expand(-1, len(rates), -1).flatten()
        scores = probe(h).unflatten(1, shape).movedim(0, 2).flatten(0, 2)
        loss_2RN = cross_entropy(scores, target, ignore_index=-1, reduction="none").view(2, len(rates), -1)
        mean_2R = loss_2RN.sum(2) / (both >= 0).sum(1, keepdim=True).clamp_min(1)
        optimizer.zero_grad()
        (mean_2R * rate_R).sum().backward()
        optimizer.step()
        schedule.step()

    def right(split: Split, labels_N: Tensor, probes: int) -> Tensor:
        h = extractor.split(subject.encoder, split, spec)
        with torch.no_grad():
            scores = probe(h.to(extractor.device)).unflatten(1, shape)[:, probes].cpu()
        return scores.argmax(2) == labels_N[:, None]

    on_validation = right(train.select(validation), y[validation], 1).sum(0).tolist()
    best = on_validation.index(max(on_validation))  # the lowest of equals
    correct = right(test, test_y, 0)[:, best]
    return with_balanced("linear_augmented", correct, test_y) | {"linear_augmented_rate": rates[best]}


def _equal_probes(count: int, features: int, classes: int, seed: int) -> nn.Linear:
    """A layer of ``count`` linear probes with the same initial weights; torch's generator is left as it was."""
    with fork_random():
        torch.manual_seed(seed)
        one = nn.Linear(features, classes)
        probes = nn.Linear(features, count * classes)
    with torch.no_grad():
        probes.weight.copy_(one.weight.repeat(count, 1))
        probes.bias.copy_(one.bias.repeat(count))
    return probes
