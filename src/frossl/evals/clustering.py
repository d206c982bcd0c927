"""Whether the clusters that features form are the classes."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from frossl.core.types import Features
from frossl.evals import Column, metric
from frossl.evals.interval import jackknife, with_interval
from frossl.evals.labels import labelled

STARTS = 10


def k_means(x_NF: Tensor, k: int, seed: int = 0, starts: int = STARTS) -> Tensor:
    """Clusters ``(N,)`` with the least squared distance to their means of ``starts`` runs of k-means from k-means++."""
    from sklearn.cluster import KMeans  # takes a second to import, and most evaluations do not need it
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    # One thread, as the order in which several add up their sums is not the same twice.
    with threadpool_limits(1, user_api="openmp"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct features than clusters: collapse
        model = KMeans(k, n_init=starts, random_state=seed)  # pyright: ignore[reportArgumentType]
        found = model.fit_predict(x_NF.float().cpu().numpy())
    return torch.from_numpy(found).long()


def matched(clusters_N: Tensor, labels_N: Tensor) -> Tensor:
    """Whether the cluster of each sample is that of its class, by the one-to-one matching that makes most so."""
    from scipy.optimize import linear_sum_assignment

    size = int(max(clusters_N.max(), labels_N.max())) + 1
    table = np.bincount((clusters_N * size + labels_N).numpy(), minlength=size * size).reshape(size, size)
    rows, columns = linear_sum_assignment(table, maximize=True)
    class_of = torch.empty(size, dtype=torch.long)
    class_of[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return class_of[clusters_N] == labels_N


@metric(
    "clustering",
    needs_labels=True,
    protocol="clusters: k-means on unit-length held-out features, k = the classes they have, "
    f"best of {STARTS} k-means++ starts, one seed; accuracy by Hungarian matching, NMI (arithmetic), adjusted Rand; "
    "intervals: Wilson, and by jackknife over images, clusters as they are",
    columns={"cluster_accuracy": Column("clusters"), "cluster_nmi": Column("NMI"), "cluster_ari": Column("ARI")},
    order=90,
)
def clustering(features: Features) -> dict[str, float]:
    """Accuracy by one-to-one matching, normalised mutual information, adjusted Rand index: 1 is perfect."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    _, _, x, y = labelled(features)
    y = y.cpu()
    found = k_means(normalize(x, dim=1), len(y.unique()))

    def agreement(kept: Tensor) -> dict[str, float]:
        a, b = y[kept].numpy(), found[kept].numpy()
        return {
            "cluster_nmi": float(normalized_mutual_info_score(a, b)),
            "cluster_ari": float(adjusted_rand_score(a, b)),
        }

    return with_interval("cluster_accuracy", matched(found, y)) | jackknife(agreement, len(y))
