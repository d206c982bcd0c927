"""LiDAR: the rank of the differences between images, relative to those between views (Thilak et al., 2312.04000)."""

from __future__ import annotations

import torch
from torch import Tensor

from frossl.core.linalg import centred, decompose, eigenvalues
from frossl.core.types import Features
from frossl.evals import Column, metric
from frossl.evals.interval import jackknife
from frossl.evals.spectral import entropy_rank


def lidar(h_VNF: Tensor, delta: float = 1e-4) -> float:
    """Exponential entropy of the eigenvalues of S_w^-1/2 S_b S_w^-1/2: between 1 and min(N - 1, F), 0 if constant.

    Images are the classes of a linear discriminant analysis and views their samples (arXiv 2312.04000, eq. 1 and 2):
    S_b is the covariance of the means over views, S_w that of views about their image's mean plus ``delta`` times the
    identity, both unbiased. Differs from the paper in that 1e-7 is not added to the eigenvalue shares.

    Rotations leave it as it is, scale does so where variances between views are well above ``delta``. Directions
    that do not depend on the image keep eigenvalues near 1 / V: compare at an equal number of views, N well above F.
    """
    views, n, width = h_VNF.shape
    eps = torch.finfo(h_VNF.dtype).eps
    h = h_VNF.double()
    rows = torch.cat([centred(h.mean(0), eps), (h - h.mean(0)).flatten(0, 1)])
    if width > len(rows):  # in coordinates of the space they span
        rows = torch.linalg.qr(rows.T, mode="r").R.T
    means, inner = rows[:n], rows[n:]
    within = inner.T @ inner / (n * (views - 1)) + delta * torch.eye(rows.shape[1], dtype=h.dtype, device=h.device)
    whitened = torch.linalg.solve_triangular(decompose(torch.linalg.cholesky, within), means.T, upper=False)
    matrix = whitened @ whitened.T if n > rows.shape[1] else whitened.T @ whitened
    return entropy_rank(eigenvalues(matrix / max(n - 1, 1)))


@metric(
    "lidar",
    needs_labels=False,
    protocol="LiDAR: rank of the discriminant matrix of two views of the training recipe of held-out images, "
    "on backbone features, delta 1e-4; interval by jackknife over images",
    columns={"lidar": Column("LiDAR", digits=1)},
    order=110,
    needs_views=True,
    default_of=("compare",),
)
def lidar_of_views(features: Features) -> dict[str, float]:
    """LiDAR and its interval where at least two views of two images were extracted."""
    views = features.views_VNF
    if views is None or min(views.shape[:2]) < 2:
        return {}
    return jackknife(lambda kept: {"lidar": lidar(views[:, kept])}, views.shape[1])
