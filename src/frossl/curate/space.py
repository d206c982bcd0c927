"""Embeddings for comparison: normalised to length one, and reduced to fewer dimensions."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from frossl.core.linalg import decompose, require_finite
from frossl.core.types import UserError

MapChoice = Literal["auto", "umap", "pca"]
DIMENSIONS = 50
"""Principal axes that clusters, choices and maps are made in."""


def unit(vectors_NF: Tensor | np.ndarray) -> Tensor:
    """Float32 vectors of length one, whose products are cosines.

    Raises:
        UserError: fewer than three images.
        NumericalError: vectors are not finite.
    """
    x = torch.as_tensor(vectors_NF).float()
    if len(x) < 3:
        raise UserError(f"{len(x)} images are too few to compare; give at least 3")
    require_finite(x, "embeddings")
    return normalize(x, dim=1)


def reduced(z_NF: Tensor, dimensions: int = DIMENSIONS) -> Tensor:
    """The rows on their first principal axes, ``(N, min(dimensions, F))``, of signs that do not depend on chance."""
    x = z_NF - z_NF.mean(0)
    axes = decompose(torch.linalg.eigh, (x.T @ x).double())[1].flip(1)[:, :dimensions]
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    return x @ axes.float()


def plane(z_NF: Tensor, seed: int = 0, method: MapChoice = "auto") -> tuple[Tensor, str]:
    """Places ``(N, 2)`` on a map, and the name of the method: UMAP or PCA; ``auto`` is UMAP if it is installed.

    Raises:
        UserError: UMAP is asked for and not installed.
    """
    x = reduced(z_NF)
    if method != "pca" and len(x) >= 16:
        try:
            from umap import UMAP  # pyright: ignore[reportMissingImports]  # takes 10 s to import
        except ImportError:
            if method == "umap":
                text = "--map umap comes with an extra: pip install 'frossl[explore]'; or give --map pca"
                raise UserError(text) from None
        else:
            umap = UMAP(n_neighbors=15, min_dist=0.1, metric="cosine", random_state=seed, n_jobs=1)
            return torch.from_numpy(np.asarray(umap.fit_transform(x.numpy()), np.float32)), "UMAP"
    return torch.nn.functional.pad(x[:, :2], (0, max(0, 2 - x.shape[1]))), "PCA"


def evenly_spaced(count: int, most: int) -> Tensor:
    """At most ``most`` indices below ``count``, evenly spaced."""
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).round().long()
