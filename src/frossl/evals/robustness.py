"""What single augmentations do to features of held-out images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch.nn.functional import cosine_similarity

from frossl.core.types import Features
from frossl.evals import Subject, metric
from frossl.evals.extract import first
from frossl.evals.interval import with_interval
from frossl.evals.knn import knn_correct
from frossl.evals.labels import labelled_images
from frossl.views.recipes import View

LIMIT = 2000
_WHOLE = View(count=1, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0)
_STRONG: dict[str, object] = {"jitter": 1.0, "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
_WEAK: dict[str, object] = {"jitter": 1.0, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}

OPERATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "nothing": ("nothing", {}),
    "crop_50": ("crop of 50 % of the area", {"scale": (0.5, 0.5)}),
    "crop_20": ("crop of 20 % of the area", {"scale": (0.2, 0.2)}),
    "flip": ("flip left to right", {"flip": 1.0}),
    "jitter": ("colour jitter 0.4, 0.4, 0.4, 0.1", _WEAK),
    "jitter_strong": ("colour jitter 0.8, 0.8, 0.8, 0.2", _STRONG),
    "gray": ("no colour", {"grayscale": 1.0}),
    "blur": ("blur of 1/32 of the side", {"blur": 1.0}),
    "blur_strong": ("blur of 1/16 of the side", {"blur": 1.0}),
    "solarize": ("solarize above 128 of 255", {"solarize": 1.0}),
}
"""Operations by name: a description, and options of a view; jitter is brightness, contrast, saturation, hue."""


def operations(channels: int, size: int) -> dict[str, View]:
    """A view for each of :data:`OPERATIONS` that means something for images of so many channels and pixels."""
    blur = {name: {"blur_sigma": (sigma, sigma)} for name, sigma in (("blur", size / 32), ("blur_strong", size / 16))}
    return {
        name: replace(_WHOLE, size=size, **options, **blur.get(name, {}))
        for name, (_, options) in OPERATIONS.items()
        if name != "gray" or channels == 3
    }


@metric(
    "robustness",
    needs_labels=False,
    of_encoder=True,
    of_pixels=True,
    protocol=f"robustness: one operation at a time on every one of up to {LIMIT:,} held-out images; kNN as above with "
    "the whole plain train split as bank; cosine similarity of the features to those of the image as it is, both "
    "less their mean over the train split; intervals: Wilson, and Student's t over images",
)
def robustness(subject: Subject, *, limit: int = LIMIT) -> dict[str, float]:
    """``knn_under_NAME``, where there are labels, and ``cosine_under_NAME`` for each of :func:`operations`."""
    spec, data, extractor = subject.spec, subject.data, subject.extractor
    views = operations(spec.channels, spec.size)
    test = first(labelled_images(data.test)[0] if data.classes else data.test, limit)
    subject.encoder.eval()
    bank = extractor.split(subject.encoder, data.train, spec)
    h_VNF = extractor.views(subject.encoder, test, spec, tuple(views.values()), subject.seed)
    mean, plain = bank.mean(0), h_VNF[list(views).index("nothing")]
    values: dict[str, float] = {}
    for name, h in zip(views, h_VNF, strict=True):
        if data.classes:
            of = Features(bank, h, data.train.labels, test.labels, data.classes)
            values |= with_interval(f"knn_under_{name}", knn_correct(of))
        if name != "nothing":
            values |= with_interval(f"cosine_under_{name}", cosine_similarity(h - mean, plain - mean))
    return values
