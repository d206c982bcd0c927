"""Everything that can be said of a collection from the embeddings of one encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from frossl.curate.duplicates import ALIKE, NEIGHBOURS, Group, near_duplicates
from frossl.curate.lists import Choice, choose, cluster_count, clusters, outlier_scores
from frossl.curate.neighbours import nearest
from frossl.curate.probe import FOLDS, Suspicion, probe_space, suspicious_labels
from frossl.curate.space import MapChoice, plane, unit

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class AnalysisOptions:
    """What to look for in a collection."""

    alike: float = ALIKE
    """correlation of pixels, at the best small shift, from which neighbours are near-duplicates"""
    clusters: int | None = None
    """how many clusters (as many as classes, else by the number of images, if not given)"""
    label_first: int = 100
    """how many images to choose for labelling"""
    choice: Choice = "typical"
    """how they are chosen: typical images of as many clusters, or random ones, evenly over clusters"""
    map: MapChoice = "auto"
    """auto is UMAP where it is installed (pip install 'frossl[explore]'), else PCA"""
    seed: int = 0
    """of everything random"""


@dataclass(frozen=True, eq=False)
class Findings:
    """Lists of N images by number.

    ``outliers`` ``(N,)`` are scores, the higher the odder; ``cluster`` ``(N,)`` the largest is 0, with
    cosines to its centre ``near``; ``labelled`` are the images whose labels ``suspicion`` is about, None without
    classes; ``label_first`` in order; ``mapped`` are the points of the map at ``places`` ``(M, 2)``.
    """

    groups: list[Group]
    outliers: Tensor
    cluster: Tensor
    near: Tensor
    labelled: Tensor
    suspicion: Suspicion | None
    label_first: Tensor
    mapped: Tensor
    places: Tensor
    map_kind: str
    seconds: dict[str, float]


def analyse(
    vectors: np.ndarray,
    pictures_NCHW: Tensor | None,
    classes_N: Tensor,
    names: Sequence[str],
    splits: Sequence[str],
    options: AnalysisOptions,
    *,
    mapped: Tensor,
    pixels_of: Callable[[int], int] = lambda i: 0,
    device: torch.device | str = "cpu",
    log: Callable[[str], None] = lambda step: None,
) -> Findings:
    """All findings on N images.

    ``vectors`` are ``(N, F)``; ``classes_N`` are indices into ``names``, -1 where unknown. Without ``pictures_NCHW``
    there are no near-duplicates, as they cannot be confirmed. ``mapped`` are the images on the map.

    Raises:
        UserError: fewer than three images, or UMAP is asked for and not installed.
        NumericalError: vectors are not finite.
    """
    seconds: dict[str, float] = {}

    def timed(step: str, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        log(step)
        start = perf_counter()
        found = work(*args, **kwargs)
        seconds[step] = perf_counter() - start
        return found

    z = unit(vectors)
    groups: list[Group] = []
    if pictures_NCHW is not None:
        _, index = timed("neighbours", nearest, z, z, NEIGHBOURS, same=True, device=device)
        how: dict[str, Any] = {"splits": splits, "pixels_of": pixels_of, "alike": options.alike, "device": device}
        groups = timed("near-duplicates", near_duplicates, index, pictures_NCHW, **how)
    seed, features = options.seed, torch.from_numpy(vectors)
    outliers = timed("outliers", outlier_scores, features)
    count = min(options.clusters or cluster_count(len(z), len(names)), len(z))
    cluster, near = timed("clusters", clusters, z, count, seed)
    labelled = (classes_N >= 0).nonzero()[:, 0]
    suspicion = None
    if len(labelled) >= 2 * FOLDS and len(classes_N[labelled].unique()) > 1:
        x = probe_space(features)[labelled]
        suspicion = timed("labels", suspicious_labels, x, classes_N[labelled], len(names), seed)
    unlabelled = (classes_N < 0).nonzero()[:, 0]
    unlabelled = unlabelled if len(unlabelled) > 2 else torch.arange(len(z))
    first = unlabelled[timed("to label first", choose, z[unlabelled], options.label_first, options.choice, seed)]
    places, kind = timed("map", plane, z[mapped], seed, options.map)
    return Findings(groups, outliers, cluster, near, labelled, suspicion, first, mapped, places, kind, seconds)
