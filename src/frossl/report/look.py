"""What an encoder makes of a bounded sample of its data: the numbers behind the pictures of a report."""

from __future__ import annotations

import copy
import time
from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from frossl.core.linalg import covariance_spectrum, decompose, require_finite, unit_rows
from frossl.core.types import Features
from frossl.data.loader import plain_batches
from frossl.data.types import Dataset, Split, any_known
from frossl.evals.extract import BANK, QUERIES, Extractor, first, pick, sample
from frossl.evals.knn import knn_predict
from frossl.evals.labels import class_count, labelled
from frossl.evals.suite import untrained_encoder
from frossl.nn.encoder import EncoderSpec

LEAST = 256
SECONDS = 8.0
"""About how long encoding them may take; a slow encoder gets fewer of them, at least :data:`LEAST`."""
NEIGHBOURS = 10


@dataclass(frozen=True, eq=False)
class Look:
    """A sample of both splits and its features; ``untrained_NF`` are of the held-out part."""

    data: Dataset
    whole: Dataset
    features: Features
    untrained_NF: Tensor


def look(
    whole: Dataset, encoder: nn.Module, spec: EncoderSpec, extractor: Extractor, *, seed: int, own: nn.Module | None
) -> Look:
    """Features of a sample of ``whole`` by ``encoder`` and by the untrained one (``own``, or that of ``seed``).

    Raises:
        NumericalError: features are not finite.
    """
    encoder = encoder.to(extractor.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    untrained = (copy.deepcopy(own) or untrained_encoder(spec, seed)).to(extractor.device).eval()
    bank, queries = affordable(encoder, spec, whole, extractor)
    data = sample(whole, bank, queries)
    if not (any_known(data.train.labels) and any_known(data.test.labels)):
        data = replace(data, classes=())
    features = extractor.data(encoder, data, spec)
    extractor.settle_batch_norm(untrained, first(data.train, bank // 2), spec)
    untrained_NF = extractor.split(untrained, data.test, spec)
    for x in (features.train_NF, features.test_NF, untrained_NF):
        require_finite(x, "features")
    return Look(data, whole, features, untrained_NF)


def affordable(encoder: nn.Module, spec: EncoderSpec, data: Dataset, extractor: Extractor) -> tuple[int, int]:
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


def nearest(features: Features, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cosine similarities and indices ``(Q, count)`` in the bank of the nearest to held-out images ``queries``."""
    bank, x = normalize(features.train_NF, dim=1), normalize(features.test_NF[queries], dim=1)
    top = (x @ bank.T).topk(min(count, len(bank)), dim=1)
    return top.values, top.indices


def plane(x_NF: Tensor) -> tuple[Tensor, list[float]]:
    """The features on their first two principal axes ``(N, 2)``, and the shares of the variance along these."""
    x = x_NF.double() - x_NF.double().mean(0)
    values, axes = decompose(torch.linalg.eigh, x.T @ x)
    shares = (values / values.sum().clamp_min(1e-30)).flip(0)[:2]
    flat = x @ axes.flip(1)[:, :2]
    return torch.nn.functional.pad(flat, (0, 2 - flat.shape[1])), shares.tolist()


def confusion(features: Features) -> Tensor:
    """Counts ``(classes, classes)`` of held-out images by true class (row) and the class kNN gives (column)."""
    x, y, test_x, test_y = labelled(features)
    classes = class_count(features)
    predicted = knn_predict(x, y, test_x, classes)
    return torch.bincount(test_y * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def confused_pairs(counts: Tensor, classes: tuple[str, ...], most: int = 6) -> list[tuple[str, str, int, float]]:
    """The commonest mistakes: true class, class given instead, how often, and as a share of the true class."""
    wrong = counts.clone().fill_diagonal_(0)
    found = Counter({divmod(i, len(classes)): n for i, n in enumerate(wrong.flatten().tolist()) if n})
    totals = counts.sum(1).tolist()
    return [(classes[a], classes[b], n, n / totals[a]) for (a, b), n in found.most_common(most)]


def typicality(x_NF: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Mean cosine similarity ``(N,)`` of each image to its nearest ``neighbours`` among the others."""
    x = normalize(x_NF, dim=1)
    similarity = (x @ x.T).fill_diagonal_(-1)
    return similarity.topk(min(neighbours, len(x) - 1), dim=1).values.mean(1)


@dataclass(frozen=True, eq=False)
class Twins:
    """For each held-out image of the sample the train image most like it, pixel by pixel.

    ``alike`` is the correlation ``(Q,)`` of grey 16 x 16 pictures of both, ``where`` the place of the train image in
    its split, of which ``searched`` images were compared.
    """

    alike: Tensor
    where: Tensor
    split: Split
    searched: int


def twins(seen: Look) -> Twins:
    """Searches the whole train split if it is in memory, else the sample of it."""
    split = seen.whole.train if seen.whole.train.in_memory else seen.data.train
    queries = _small(seen.data, seen.data.test)
    best, where, start = torch.full((len(queries),), -1.0), torch.zeros(len(queries), dtype=torch.long), 0
    for part in _small_parts(seen.data, split):
        alike, index = (queries @ part.T).max(1)
        where = torch.where(alike > best, index + start, where)
        best, start = torch.maximum(best, alike), start + len(part)
    return Twins(best.clamp(-1, 1), where, split, start)


def _small(data: Dataset, split: Split) -> Tensor:
    return torch.cat(list(_small_parts(data, split)))


def _small_parts(data: Dataset, split: Split):
    """Grey 16 x 16 pictures as rows of mean 0 and length 1, so that products are correlations."""
    for x in plain_batches(split, 16, [0.0] * data.channels, [1.0] * data.channels):
        flat = x.mean(1).flatten(1)
        yield unit_rows(flat - flat.mean(1, keepdim=True))


def spread_over_classes(seen: Look, count: int) -> Tensor:
    """Places of ``count`` held-out images of the sample, taken from the classes in turn where there are any."""
    labels = seen.features.test_labels
    if not seen.data.classes or labels is None:
        return torch.linspace(0, len(seen.data.test) - 1, min(count, len(seen.data.test))).long()
    order = torch.argsort(labels, stable=True)
    rank = torch.arange(len(order)) - torch.searchsorted(labels[order], labels[order])
    in_turn = order[torch.argsort(rank, stable=True)]
    return in_turn[labels[in_turn] >= 0][:count]


def chosen(split: Split, index: Tensor) -> list[Tensor]:
    """The uint8 images ``(C, H, W)`` at ``index``."""
    part = pick(split, index)
    return [part.images[i] for i in range(len(part))]
