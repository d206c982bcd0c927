"""The monitor of training: a linear probe on detached features, kNN and effective rank on part of the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from frossl.core.axes import fold, fold_labels
from frossl.core.linalg import or_nothing
from frossl.core.types import Features, any_known
from frossl.data.types import Dataset
from frossl.evals.balanced import are_uneven
from frossl.evals.extract import Extractor, on_device, sample
from frossl.evals.knn import knn
from frossl.evals.ridge import ridge
from frossl.evals.spectral import effective_rank
from frossl.nn.encoder import EncoderSpec
from frossl.nn.optim import step_if


class OnlineProbe(nn.Module):
    """A linear classifier of standardised, detached features with an optimiser of its own."""

    def __init__(self, features: int, classes: int, lr: float = 1e-3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(features, affine=False), nn.Linear(features, classes))
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=lr, weight_decay=0.0, fused=True)

    def learn(self, h_VNF: Tensor, labels_N: Tensor, good: Tensor) -> Tensor:
        """One step on the views of images that have a label (-1 is none), unless ``good``, a scalar, is 0.

        All are on one device. Features are standardised by the statistics of all views, with a label or without, which
        change in any case, as in every forward pass. Returns the accuracy on views with a label, NaN without any; then
        there is no step.
        """
        y = fold_labels(labels_N, len(h_VNF)).clamp_min(-1)
        count = (y >= 0).sum()
        scores = self.layers(fold(h_VNF.detach()).float())
        self.optimizer.zero_grad()
        cross_entropy(scores, y, ignore_index=-1).backward()
        step_if(good * (count > 0), self.optimizer)
        return (scores.argmax(1) == y).sum().float() / count

    @torch.no_grad()
    def accuracy(self, h_NF: Tensor, labels_N: Tensor) -> float:
        """Accuracy on plain held-out features."""
        self.layers.eval()
        device = next(self.parameters()).device
        known = labels_N >= 0
        right = self.layers(h_NF[known].to(device)).argmax(1).cpu() == labels_N[known].cpu()
        self.layers.train()
        return right.double().mean().item()


def measure_encoder(
    encoder: nn.Module,
    data: Dataset,
    spec: EncoderSpec,
    extractor: Extractor,
    probe: OnlineProbe | None,
    with_ridge: bool = False,
) -> tuple[dict[str, float], Tensor]:
    """Figures of the encoder on the :func:`sample` of the data, empty if features are not finite.

    They include the balanced accuracy of kNN if the classes of the held-out images are uneven, and with ``with_ridge``
    the accuracy of a ridge probe fitted on the training images. Also returns the held-out features ``(N, F)``.
    """
    features: Features = extractor.data(encoder, sample(data), spec)
    classes_N = data.test.labels if data.classes and any_known(data.test.labels) else None

    def measured() -> dict[str, float]:
        placed = on_device(features, extractor.device)
        values = _figures(placed, probe, classes_N is not None and are_uneven(classes_N))
        if with_ridge and "knn" in values:
            values |= {name: value for name, value in ridge(placed).items() if name == "ridge"}
        return values

    return extractor.first(measured), features.test_NF


@or_nothing
def _figures(features: Features, probe: OnlineProbe | None, balanced: bool) -> dict[str, float]:
    values = {"effective_rank": effective_rank(features.test_NF)}
    if probe is not None and any_known(features.train_labels) and any_known(features.test_labels):
        values |= knn(features, balanced=balanced)
        values["probe"] = probe.accuracy(features.test_NF, features.test_labels)
    return values
