"""Batches of augmented images for metrics that train, and how long such a metric will take."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from frossl.data.loader import Batch, training_batches
from frossl.data.types import Split
from frossl.evals import Subject
from frossl.views.recipes import View

WARM_UP, TIMED = 2, 5
"""Steps that are not timed, as the first are slow, and steps that are."""


def crops_and_flips(
    subject: Subject,
    train: Split,
    title: str,
    *,
    batch: int,
    steps: int,
    remaining: int | None = None,
    least: float = 0.08,
    flip: float = 0.5,
) -> Iterator[tuple[int, Batch]]:
    """Numbers of ``steps``, and batches of one crop of each image, of ``least`` of its area or more.

    After a few steps it logs, under ``title``, how many minutes the ``remaining`` steps of the metric take: these, or
    more where others follow.
    """
    spec, extractor = subject.spec, subject.extractor
    view = View(count=1, size=spec.size, scale=(least, 1.0), flip=flip, jitter=0.0, grayscale=0.0)
    data = replace(subject.data, train=train, mean=spec.mean, std=spec.std)
    batches = training_batches(
        data, (view,), batch=batch, seed=subject.seed, workers=extractor.workers, device=extractor.device
    )
    start = 0.0
    for step, images in zip(range(steps), batches, strict=False):
        if step in (WARM_UP, WARM_UP + TIMED):
            if extractor.device.type != "cpu":
                torch.accelerator.synchronize(extractor.device)
            now = time.perf_counter()
            if step > WARM_UP:
                minutes = math.ceil((now - start) / TIMED * (remaining or steps) / 60)
                subject.log(f"{title}: about {minutes} min to the end of this encoder")
            start = now
        yield step, images
