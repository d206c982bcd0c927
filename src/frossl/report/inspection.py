"""Features of a bounded sample of the data of a run: the numbers behind the pictures of a report."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from frossl.core.linalg import covariance_spectrum, decompose, require_finite, unit_rows
from frossl.core.types import Features, any_known
from frossl.data.loader import plain_batches
from frossl.data.types import Dataset, Split
from frossl.evals.extract import BANK, QUERIES, Extractor, first, sample
from frossl.evals.knn import knn_predict
from frossl.evals.labels import class_count, labelled
from frossl.evals.suite import untrained_encoder
from frossl.nn.encoder import EncoderSpec

LEAST = 256
SECONDS = 8.0
"""About how long encoding them may take; a slow encoder gets fewer of them, at least :data:`LEAST`."""


@dataclass(frozen=True, eq=False)
class InspectedEncoder:
    """A sample of both splits and its features; ``untrained_NF`` are of the held-out part."""

    data: Dataset
    whole: Dataset
    features: Features
    untrained_NF: Tensor


def inspect_encoder(
    whole: Dataset, encoder: nn.Module, spec: EncoderSpec, extractor: Extractor, *, seed: int, own: nn.Module | None
) -> InspectedEncoder:
    """Features of a sample of ``whole`` by ``encoder`` and by the untrained one (``own``, or that of ``seed``).

    Raises:
        NumericalError: features are not finite.
    """
    encoder = encoder.to(extractor.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    untrained = (copy.deepcopy(own) or untrained_encoder(spec, seed)).to(extractor.device).eval()
    bank, queries = sample_sizes(encoder, spec, whole, extractor)
    data = sample(whole, bank, queries)
    if not (any_known(data.train.labels) and any_known(data.test.labels)):
        data = replace(data, classes=())
    features = extractor.data(encoder, data, spec)
    extractor.settle_batch_norm(untrained, first(data.train, bank // 2), spec)
    untrained_NF = extractor.split(untrained, data.test, spec)
    for x in (features.train_NF, features.test_NF, untrained_NF):
        require_finite(x, "features")
    return InspectedEncoder(data, whole, features, untrained_NF)


def sample_sizes(encoder: nn.Module, spec: EncoderSpec, data: Dataset, extractor: Extractor) -> tuple[int, int]:
    """How many train and held-out images can be encoded in :data:`SECONDS`, from the time that a few take."""
    few = first(data.test, 64)
    extractor.split(encoder, few, spec)
    start = time.perf_counter()
    extractor.split(encoder, few, spec)
    images = SECONDS * len(few) / (time.perf_counter() - start)
    # Both splits by the trained encoder; half the bank, for batch norms, and the queries by the untrained one.
    share = min(1.0, images / (1.5 * BANK + 2 * QUERIES))
    return max(LEAST, int(share * BANK)), max(LEAST, int(share * QUERIES))


def spectrum_shares(x_NF: Tensor) -> list[float]:
    """Eigenvalues of the covariance as shares of the total variance, without those that are rounding."""
    values = covariance_spectrum(x_NF)
    values = values[values > values[:1] * 1e-9]
    return (values / values.sum()).tolist() if len(values) else []


def plane(x_NF: Tensor) -> tuple[Tensor, list[float]]:
    """The features on their first two principal axes ``(N, 2)``, and the shares of the variance along these."""
    x = x_NF.double() - x_NF.double().mean(0)
    values, axes = decompose(torch.linalg.eigh, x.T @ x)
    shares, flat = values.flip(0)[:2] / values.sum().clamp_min(1e-30), x @ axes.flip(1)[:, :2]
    missing = (0, 2 - len(shares))
    return pad(flat, missing), pad(shares, missing).tolist()


def confusion(features: Features) -> Tensor:
    """Counts ``(classes, classes)`` of held-out images by true class (row) and the class kNN gives (column)."""
    x, y, test_x, test_y = labelled(features)
    classes = class_count(features)
    predicted = knn_predict(x, y, test_x, classes)
    return torch.bincount(test_y * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def confused_pairs(counts: Tensor, classes: tuple[str, ...], most: int = 6) -> list[tuple[str, str, int, float]]:
    """The commonest mistakes: true class, class given instead, how often, and as a share of the true class."""
    wrong = counts.clone().fill_diagonal_(0).flatten()
    order = wrong.argsort(descending=True, stable=True)[:most].tolist()
    pairs = [(*divmod(i, len(classes)), int(wrong[i])) for i in order if wrong[i]]
    return [(classes[true], classes[given], n, n / int(counts[true].sum())) for true, given, n in pairs]


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """For each held-out image of the sample the train image most like it, pixel by pixel.

    ``alike`` is the correlation ``(Q,)`` of grey 16 x 16 pictures of both, ``where`` the place of the train image in
    ``split``, all of which was searched.
    """

    alike: Tensor
    where: Tensor
    split: Split


def near_duplicates(seen: InspectedEncoder) -> NearDuplicates:
    """Searches the whole train split if it is in memory, else the sample of it."""
    split = seen.whole.train if seen.whole.train.in_memory else seen.data.train
    queries = torch.cat(list(_small_grey(seen.data, seen.data.test)))
    best, where, start = torch.full((len(queries),), -1.0), torch.zeros(len(queries), dtype=torch.long), 0
    for part in _small_grey(seen.data, split):
        alike, index = (queries @ part.T).max(1)
        where = torch.where(alike > best, index + start, where)
        best, start = torch.maximum(best, alike), start + len(part)
    return NearDuplicates(best.clamp(-1, 1), where, split)


def _small_grey(data: Dataset, split: Split) -> Iterator[Tensor]:
    """Grey 16 x 16 pictures as rows of mean 0 and length 1, so that products are correlations, batch by batch."""
    for x in plain_batches(split, 16, [0.0] * data.channels, [1.0] * data.channels):
        flat = x.mean(1).flatten(1)
        yield unit_rows(flat - flat.mean(1, keepdim=True))


def spread_over_classes(seen: InspectedEncoder, count: int) -> Tensor:
    """Places of ``count`` held-out images of the sample, taken from the classes in turn where there are any."""
    labels = seen.features.test_labels
    if not seen.data.classes or labels is None:
        return torch.linspace(0, len(seen.data.test) - 1, min(count, len(seen.data.test))).long()
    order = torch.argsort(labels, stable=True)
    rank = torch.arange(len(order)) - torch.searchsorted(labels[order], labels[order])
    in_turn = order[torch.argsort(rank, stable=True)]
    return in_turn[labels[in_turn] >= 0][:count]
