"""Embeddings as they are compared: of length one, and in fewer dimensions where that is enough."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from frossl.core.linalg import decompose, require_finite
from frossl.core.types import UserError

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


def plane(z_NF: Tensor, seed: int = 0, umap: bool | None = None) -> tuple[Tensor, str]:
    """Places ``(N, 2)`` on a map and the name of how: UMAP where it is installed, unless told, else PCA.

    Raises:
        UserError: UMAP is asked for and not installed.
    """
    small = reduced(z_NF)
    if umap is False or len(small) < 16:
        return _first_two(small), "PCA"
    try:
        from umap import UMAP  # pyright: ignore[reportMissingImports]  # takes 10 s to import
    except ImportError:
        if umap:
            raise UserError(
                "--map umap comes with an extra: pip install 'frossl[explore]'; or give --map pca"
            ) from None
        return _first_two(small), "PCA"
    made = UMAP(n_neighbors=15, min_dist=0.1, metric="cosine", random_state=seed, n_jobs=1).fit_transform(small.numpy())
    return torch.from_numpy(np.asarray(made, np.float32)), "UMAP"


def _first_two(x_NF: Tensor) -> Tensor:
    return torch.nn.functional.pad(x_NF[:, :2], (0, max(0, 2 - x_NF.shape[1])))


def spread(count: int, most: int) -> Tensor:
    """At most ``most`` places of ``count``, evenly spread."""
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).round().long()
