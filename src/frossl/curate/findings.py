"""All lists of a collection at once, from the embeddings of one encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from frossl.curate.duplicates import ALIKE, NEIGHBOURS, Group, near_duplicates
from frossl.curate.lists import Choice, choose, cluster_count, clusters, outlier_scores
from frossl.curate.neighbours import nearest
from frossl.curate.probe import FOLDS, Suspicion, probe_space, suspicious_labels
from frossl.curate.space import plane, unit

T = TypeVar("T")
MapChoice = Literal["auto", "umap", "pca"]


@dataclass(frozen=True, kw_only=True)
class ExploreOptions:
    """What is asked of a collection."""

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
    asked: ExploreOptions,
    *,
    mapped: Tensor,
    pixels_of: Callable[[int], int] = lambda i: 0,
    device: torch.device | str = "cpu",
    tell: Callable[[str], None] = lambda what: None,
) -> Findings:
    """Everything that ``asked`` asks of N images.

    ``classes`` are numbers of ``names``, -1 where unknown. Without ``pictures`` there are no near-duplicates, as none
    can be confirmed. ``mapped`` are the images on the map.

    Raises:
        UserError: fewer than three images, or a map that cannot be had.
        NumericalError: vectors are not finite.
    """
    seconds: dict[str, float] = {}

    def timed(what: str, work: Callable[[], T]) -> T:
        tell(what)
        start = perf_counter()
        found = work()
        seconds[what] = perf_counter() - start
        return found

    z = unit(vectors)
    groups: list[Group] = []
    if pictures_NCHW is not None:
        index = timed("neighbours", lambda: nearest(z, z, NEIGHBOURS, same=True, device=device)[1])
        how: dict[str, Any] = {"splits": splits, "pixels_of": pixels_of, "alike": asked.alike, "device": device}
        groups = timed("near-duplicates", lambda: near_duplicates(index, pictures_NCHW, **how))
    outliers = timed("outliers", lambda: outlier_scores(torch.from_numpy(vectors)))
    count = min(asked.clusters or cluster_count(len(z), len(names)), len(z))
    of, near = timed("clusters", lambda: clusters(z, count, asked.seed))
    labelled = (classes_N >= 0).nonzero()[:, 0]
    suspicion = None
    if len(labelled) >= 2 * FOLDS and len(classes_N[labelled].unique()) > 1:
        x, y = probe_space(torch.from_numpy(vectors)), classes_N[labelled]
        suspicion = timed("labels", lambda: suspicious_labels(x[labelled], y, len(names), asked.seed))
    free = (classes_N < 0).nonzero()[:, 0]
    free = free if len(free) > 2 else torch.arange(len(z))
    first = timed("to label first", lambda: free[choose(z[free], asked.label_first, asked.choice, asked.seed)])
    umap = {"auto": None, "umap": True, "pca": False}[asked.map]
    places, kind = timed("map", lambda: plane(z[mapped], asked.seed, umap))
    return Findings(groups, outliers, of, near, labelled, suspicion, first, mapped, places, kind, seconds)
