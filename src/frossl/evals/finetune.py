"""Fine-tuning: the whole encoder learns on from labels, with a linear classifier on top."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from frossl.core.device import fork_random
from frossl.core.types import UserError
from frossl.data.types import Split
from frossl.evals import Column, Subject, metric
from frossl.evals.balanced import with_balanced
from frossl.evals.labels import draw_labels, labelled_images, percentage, validation_split
from frossl.evals.learning import crops_and_flips
from frossl.nn.convolution import narrow_in_float32
from frossl.nn.optim import build_optimizer, warmup_cosine

RATES = (1e-4, 5e-4, 2.5e-3)
EPOCHS, LEAST, BATCH = 5, 300, 128
"""Passes over the labelled images, but at least so many steps, of so many images."""


def finetune(subject: Subject, *, percent: float = 100.0, rates: tuple[float, ...] = RATES) -> dict[str, float]:
    """Top-1 and balanced accuracy on held-out images, and the learning rate that was chosen.

    A copy of the encoder learns with ``percent`` of the labels of each class, at least one, once per rate on nine
    tenths of them and then, with the rate that was best on the other tenth, on all. It starts from the encoder as it
    is, so the untrained arm is training from scratch in as many steps.

    Raises:
        UserError: fewer than 3 labelled training images.
    """
    name = "finetune" if percent == 100 else f"finetune_{percent:g}pct"
    train, y = labelled_images(subject.data.train)
    if percent < 100:
        train = train.select(draw_labels(y, percentage(percent), len(subject.data.classes), subject.seed))
    if len(train) < 3:
        raise UserError(f"fine-tuning needs at least 3 labelled training images, got {len(train)}")
    validation, rest = validation_split(len(train))
    alone = replace(subject, extractor=subject.extractor.alone())

    def right(split: Split, rate: float, part: str, remaining: int, test: Split) -> Tensor:
        """Whether each image of ``test`` is classified right after fine-tuning on ``split``."""
        model = _tune(alone, split, rate, f"{name}, learning rate {rate:g} on {part} of the labels", remaining)
        test, y = labelled_images(test)
        wide = replace(subject.spec, features=len(subject.data.classes))
        return alone.extractor.split(model, test, wide).argmax(1) == y

    def score(number: int) -> int:
        remaining = (len(rates) - number) * _steps(len(rest)) + _steps(len(train))
        split, held_out = train.select(rest), train.select(validation)
        return int(right(split, rates[number], "nine tenths", remaining, held_out).sum())

    scores = subject.extractor.spread(score, range(len(rates)))
    best = rates[scores.index(max(scores))]  # the lowest of equals

    def measured() -> dict[str, float]:
        correct = right(train, best, "all", _steps(len(train)), subject.data.test)
        return with_balanced(name, correct, labelled_images(subject.data.test)[1]) | {f"{name}_rate": best}

    return subject.extractor.first(measured)


def _steps(images: int) -> int:
    return max(LEAST, EPOCHS * (images // min(BATCH, images)))


def _tune(subject: Subject, train: Split, rate: float, title: str, remaining: int) -> nn.Module:
    """A copy of the encoder under a linear classifier, trained on ``train``; the rest as :func:`crops_and_flips`."""
    spec, device, bf16 = subject.spec, subject.extractor.device, subject.extractor.half == torch.bfloat16
    own, steps, batch = subject.recipe[0], _steps(len(train)), min(BATCH, len(train))
    with fork_random(device):  # which drop-out draws from
        torch.manual_seed(subject.seed)
        head = nn.Linear(spec.features, len(subject.data.classes))
        nn.init.zeros_(head.weight)
        model = nn.Sequential(copy.deepcopy(subject.encoder), head).to(device).train()
        optimizer = build_optimizer("adamw", [model], lr=rate, weight_decay=0.01)
        how = {"batch": batch, "steps": steps, "remaining": remaining, "least": own.scale[0], "flip": own.flip}
        for step, b in crops_and_flips(subject, train, title, **how):
            for group in optimizer.param_groups:
                group["lr"] = rate * warmup_cosine(step / steps, 0.1)
            with narrow_in_float32(model, device, bf16):
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    scores = model(b.views[0][0].to(device, memory_format=torch.channels_last))
                assert b.labels_N is not None
                loss = cross_entropy(scores.float(), b.labels_N.to(device))
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
    return model.eval()


for _percent, _name, _heading, _in_full in (
    (100, "finetune", "fine-tuned", ""),
    (10, "finetune_10pct", "fine-t. 10 %", "fine-tuned, 10 % of the labels"),
    (1, "finetune_1pct", "fine-t. 1 %", "fine-tuned, 1 % of the labels"),
):
    metric(
        _name.replace("_", "-"),
        needs_labels=True,
        of_encoder=True,
        over_ranks=True,
        protocol=f"fine-tuned: encoder and linear classifier on {_percent} % of the train labels, one draw, {EPOCHS} "
        f"epochs or {LEAST} steps if that is more, batch {BATCH}, AdamW, weight decay 0.01, cosine after 10 % warm-up, "
        f"crops and flips of the run's views; rate of {', '.join(f'{r:g}' for r in RATES)} by a tenth of those labels; "
        "intervals: Wilson",
        columns={_name: Column(_heading, _in_full, score="accuracy", decides=True)},
        order=60,
        glossary={
            "Fine-tuned": "The encoder itself learns on from labels, all or a share of them: what it is worth as a "
            "start for training. For the untrained encoder that is training from scratch."
        },
    )(partial(finetune, percent=_percent))
