"""The paper's linear probe: a linear layer on a frozen encoder that sees augmented images."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from frossl.core.types import UserError
from frossl.data.loader import training_batches
from frossl.data.types import Dataset
from frossl.evals.extract import Extractor, pick
from frossl.nn.encoder import EncoderSpec
from frossl.views.recipes import View

EPOCHS = 100
DROPS = (60, 80)


def augmented_linear(
    encoder: nn.Module,
    spec: EncoderSpec,
    data: Dataset,
    extractor: Extractor,
    *,
    seed: int,
    lr: float = 0.3,
    batch: int = 256,
    epochs: int = EPOCHS,
) -> float:
    """linear, augmented: SGD 0.3 per 256 images, 100 epochs, x0.1 at 60 and 80, crops of 8-100 % and flips.

    The protocol of arXiv 2310.02903 as its text gives it (its configurations vary the rate by method, between 0.01
    and 30). Returns top-1 accuracy on the held-out images, which are not augmented. The encoder stays in eval mode.
    """
    train = data.train
    if train.labels is None:
        raise UserError("the linear probe needs labels")
    if not bool((train.labels >= 0).all()):
        train = pick(train, (train.labels >= 0).nonzero()[:, 0])
    labelled = replace(data, train=train, mean=spec.mean, std=spec.std)
    crop_and_flip = View(count=1, size=spec.size, scale=(0.08, 1.0), jitter=0.0, grayscale=0.0)
    batch = min(batch, len(train))
    per_epoch = len(train) // batch
    encoder.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        probe = nn.Linear(spec.features, len(data.classes)).to(extractor.device)
    optimizer = torch.optim.SGD(probe.parameters(), lr=lr * batch / 256, momentum=0.9)
    drops = [round(epochs * d / EPOCHS) * per_epoch for d in DROPS]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=drops)
    batches = training_batches(
        labelled, (crop_and_flip,), batch=batch, seed=seed, workers=extractor.workers, device=extractor.device
    )
    for _, b in zip(range(epochs * per_epoch), batches, strict=False):
        assert b.labels_N is not None
        h = extractor.encode(encoder, b.views[0][0])
        loss = cross_entropy(probe(h.to(extractor.device)), b.labels_N.to(extractor.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    h = extractor.split(encoder, data.test, spec)
    with torch.no_grad():
        predicted = probe(h.to(extractor.device)).argmax(1).cpu()
    assert data.test.labels is not None
    known = data.test.labels >= 0
    return (predicted == data.test.labels)[known].double().mean().item()
