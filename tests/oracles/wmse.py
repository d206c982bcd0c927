"""W-MSE, Ermolov et al., arXiv 2007.06346: Cholesky whitening in sub-batches, then distance of unit rows."""

from __future__ import annotations

import numpy as np

from oracles import basics

EMBEDDINGS = ("z",)
SHARDED = {"z": 1}
OPTIONS = ({}, {"epsilon": 0.1}, {"stop_gradient": True}, {"size": None, "permutations": None, "epsilon": 0.2})


def other_order_of_images(random: np.random.Generator, arguments: basics.Arguments) -> basics.Arguments:
    """The permutations are renamed so that every sub-batch stays as it was."""
    images = arguments["z"].shape[1]
    order = random.permutation(images)
    permutations = arguments["permutations"]
    permutations = np.arange(images)[None] if permutations is None else permutations
    return arguments | {"z": arguments["z"][:, order], "permutations": np.argsort(order)[permutations]}


def triangular_map(random: np.random.Generator, arguments: basics.Arguments) -> basics.Arguments | None:
    """Cholesky whitening undoes any upper triangular map of a view's rows with a positive diagonal."""
    if arguments["epsilon"] != 0:
        return None
    views, _, width = arguments["z"].shape
    maps = np.triu(0.5 * random.normal(size=(views, width, width)), 1) + np.stack(
        [np.diag(random.uniform(0.5, 2, size=width)) for _ in range(views)]
    )
    return arguments | {"z": arguments["z"] @ maps}


INVARIANCES = {
    "order of images": other_order_of_images,
    "order of views": basics.other_order_of_views("z"),  # also where a view is stopped: only the gradient changes
    "shift of columns": basics.shifted_columns("z", alike=False),
    "triangular map": triangular_map,
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    """Two permutations; two sub-batches and a remainder where images are many enough; epsilon where they are few."""
    size = (images - 1) // 2 if images >= 2 * width + 5 else images
    return {
        "z": basics.related_views(random, views, images, width),
        "size": size,
        "permutations": np.stack([random.permutation(images) for _ in range(2)]),
        "epsilon": 0.0 if size > width else 0.1,
    }


def whiten(x_ND: np.ndarray, epsilon: float) -> np.ndarray:
    size, width = x_ND.shape
    centred = x_ND - x_ND.mean(axis=0)
    covariance = sum(np.outer(x, x) for x in centred) / (size - 1)
    lower = np.linalg.cholesky((1 - epsilon) * covariance + epsilon * np.eye(width))
    return np.stack([np.linalg.solve(lower, x) for x in centred])


def distance(
    first: np.ndarray, later: np.ndarray, size: int | None, permutations: np.ndarray | None, epsilon: float
) -> float:
    """Mean over permutations, sub-batches and pairs of views u < v, u taken from ``first`` and v from ``later``."""
    views, images, _ = first.shape
    size = images if size is None else size
    permutations = np.arange(images)[None] if permutations is None else permutations
    distances = []
    for order in permutations:
        for start in range(0, images - size + 1, size):
            part = order[start : start + size]
            for u, v in basics.unordered_pairs(views):
                a, b = whiten(first[u][part], epsilon), whiten(later[v][part], epsilon)
                distances.append(2 - 2 * basics.mean_cosine(a, b))
    return basics.mean(distances)


def loss(
    z: np.ndarray,
    *,
    size: int | None = None,
    permutations: np.ndarray | None = None,
    epsilon: float = 0.0,
    stop_gradient: bool = False,
) -> dict[str, float]:
    return {"similarity": distance(z, z, size, permutations, epsilon)}


def stopped_gradient(
    z: np.ndarray,
    *,
    size: int | None = None,
    permutations: np.ndarray | None = None,
    epsilon: float = 0.0,
    stop_gradient: bool = False,
) -> np.ndarray | None:
    """By central differences with the later view of each pair held."""
    if not stop_gradient:
        return None
    step, result = 1e-5, np.zeros(z.shape)
    for index in np.ndindex(z.shape):
        up, down = z.copy(), z.copy()
        up[index] += step
        down[index] -= step
        higher, lower = (distance(x, z, size, permutations, epsilon) for x in (up, down))
        result[index] = (higher - lower) / (2 * step)
    return result


def too_few(random: np.random.Generator) -> tuple[basics.Arguments, str]:
    return {"z": random.normal(size=(2, 4, 4))}, "size"


def too_small(random: np.random.Generator) -> tuple[basics.Arguments, str]:
    return {"z": random.normal(size=(2, 16, 4)), "size": 4}, "size"


def too_large(random: np.random.Generator) -> tuple[basics.Arguments, str]:
    return {"z": random.normal(size=(2, 16, 4)), "size": 17}, "size"


def singular(random: np.random.Generator) -> tuple[basics.Arguments, str]:
    return {"z": np.zeros((2, 16, 4))}, "(?i)w-?mse.*epsilon"


ERRORS = {
    "fewer images than columns": too_few,
    "sub-batches as small as columns": too_small,
    "sub-batches larger than the batch": too_large,
    "no variance": singular,
}
