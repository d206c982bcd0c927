"""CorInfoMax, Ozsoy et al., arXiv 2209.07999, on unit rows with running covariances."""

from __future__ import annotations

import numpy as np

from oracles import basics

EMBEDDINGS = ("z",)
STOPPED = ("mean", "covariance")
SHARDED = {"z": 1}
WIDE = ("mean", "covariance")
OPTIONS = ({}, {"forgetting": 0.4, "epsilon": 1e-3, "invariance_weight": 50.0})


def rotation(random: np.random.Generator, arguments: basics.Arguments) -> basics.Arguments:
    """The running statistics are rotated with the embeddings."""
    matrix = basics.rotation_matrix(random, arguments["mean"].shape[-1])
    return arguments | {
        "z": arguments["z"] @ matrix,
        "mean": arguments["mean"] @ matrix,
        "covariance": matrix.T @ arguments["covariance"] @ matrix,
    }


INVARIANCES = {
    "order of images": basics.other_order_of_images(SHARDED),
    "order of views": basics.other_order_of_views("z", "mean", "covariance"),
    "length of rows": basics.longer_rows("z"),
    "rotation": rotation,
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    root = random.normal(size=(views, width, width))
    return {
        "z": basics.related_views(random, views, images, width),
        "mean": 0.1 * random.normal(size=(views, width)),
        "covariance": root @ root.transpose(0, 2, 1) / width + 0.5 * np.eye(width),
    }


def state(
    z: np.ndarray, mean: np.ndarray, covariance: np.ndarray, *, forgetting: float = 0.01, **options: float
) -> dict[str, np.ndarray]:
    means, covariances = [], []
    for z_ND, old_mean, old_covariance in zip(basics.unit_rows(z), mean, covariance, strict=True):
        new_mean = forgetting * old_mean + (1 - forgetting) * sum(z_ND) / len(z_ND)
        spread = sum(np.outer(row - new_mean, row - new_mean) for row in z_ND) / len(z_ND)
        means.append(new_mean)
        covariances.append(forgetting * old_covariance + (1 - forgetting) * spread)
    return {"mean": np.array(means), "covariance": np.array(covariances)}


def loss(
    z: np.ndarray,
    mean: np.ndarray,
    covariance: np.ndarray,
    *,
    forgetting: float = 0.01,
    epsilon: float = 1e-6,
    invariance_weight: float = 500.0,
) -> dict[str, float]:
    views, _, width = z.shape
    u = basics.unit_rows(z)
    log_determinant = []
    for matrix in state(z, mean, covariance, forgetting=forgetting)["covariance"]:
        eigenvalues = np.linalg.eigvalsh(matrix + epsilon * np.eye(width))
        log_determinant.append(float(np.log(eigenvalues).sum()))
    pairs = basics.unordered_pairs(views)
    return {
        "log_determinant": -basics.mean((log_determinant[a] + log_determinant[b]) / width for a, b in pairs),
        "invariance": invariance_weight * basics.mean(basics.mean_square(u[a] - u[b]) for a, b in pairs),
    }
