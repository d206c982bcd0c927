"""Slow, obvious float64 NumPy oracle of the FroSSL objective (arXiv 2310.02903).

Written from the formulas alone, without looking at any implementation. Nothing here is clever on purpose: the
D x D matrix is always formed in full, Frobenius norms are explicit double sums and gradients are finite
differences.
"""

import math
from typing import Any

import numpy as np

from oracles import basics

EMBEDDINGS = ("z",)
SHARDED = {"z": 1}
OPTIONS = (
    {},
    *(
        {"centre": centre, "normalise": normalise, "log": log, "view_scaling": "mean", "invariance_weight": 1.3}
        for centre in (False, True)
        for normalise in ("batch", "sample")
        for log in (True, False)
    ),
)


def invariance(transformation: basics.Transformation, **needed: Any) -> basics.Transformation:
    """``transformation`` where the options are as ``needed``."""

    def transform(random: np.random.Generator, arguments: basics.Arguments) -> basics.Arguments | None:
        options = {"centre": True, "normalise": "batch"} | arguments
        return transformation(random, arguments) if needed.items() <= options.items() else None

    return transform


INVARIANCES = {
    "order of images": basics.other_order_of_images(SHARDED),
    "order of views": basics.other_order_of_views("z"),
    "order of columns": basics.other_order_of_columns("z"),
    "signs of columns": basics.other_signs_of_columns("z"),
    "length of columns": invariance(basics.longer_columns("z"), normalise="batch"),
    "length of rows": invariance(basics.longer_rows("z"), normalise="sample", centre=False),
    "rotation": invariance(basics.rotation("z"), normalise="sample"),
    "shift of columns": invariance(basics.shifted_columns("z", alike=False), centre=True),
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    return {"z": basics.related_views(random, views, images, width)}


def loss(z: np.ndarray, **options: Any) -> dict[str, float]:
    terms = frossl(z, **{"centre": True, **options})
    del terms["total"]
    return terms


def nothing_in_it(random: np.random.Generator) -> tuple[basics.Arguments, str]:
    return {"z": np.full((2, 5, 3), 0.7)}, "the batch holds no information"


ERRORS = {"a constant batch": nothing_in_it}


def centre_columns(z_ND: np.ndarray) -> np.ndarray:
    """Subtract from each column its mean over the batch."""
    n, d = z_ND.shape
    out_ND = np.zeros((n, d))
    for j in range(d):
        # Mean relative to the first entry, so that a constant column gives exactly zero, not rounding noise.
        first = z_ND[0, j]
        shifted_mean = sum(z_ND[i, j] - first for i in range(n)) / n
        for i in range(n):
            out_ND[i, j] = (z_ND[i, j] - first) - shifted_mean
    return out_ND


def unit_columns(z_ND: np.ndarray) -> np.ndarray:
    """Divide each column by its L2 norm over the batch; a zero column stays zero."""
    out_ND = np.zeros(z_ND.shape)
    for j in range(z_ND.shape[1]):
        norm = math.sqrt(sum(x * x for x in z_ND[:, j]))
        if norm > 0.0:
            out_ND[:, j] = z_ND[:, j] / norm
    return out_ND


def unit_rows(z_ND: np.ndarray) -> np.ndarray:
    """Divide each row by its L2 norm; a zero row stays zero."""
    out_ND = np.zeros(z_ND.shape)
    for i in range(z_ND.shape[0]):
        norm = math.sqrt(sum(x * x for x in z_ND[i, :]))
        if norm > 0.0:
            out_ND[i, :] = z_ND[i, :] / norm
    return out_ND


def squared_frobenius(m: np.ndarray) -> float:
    """Sum of the squares of all entries, one by one."""
    total = 0.0
    for row in m:
        for x in row:
            total += float(x) * float(x)
    return total


def divide_by_trace(m: np.ndarray) -> np.ndarray:
    trace = sum(float(m[i, i]) for i in range(m.shape[0]))
    if trace == 0.0:
        raise ValueError("a view is zero everywhere: the trace is zero and the loss undefined")
    return m / trace


def gaussian_kernel(x_ND: np.ndarray, sigma: float) -> np.ndarray:
    """K[i, j] = exp(-||x_i - x_j||^2 / (2 sigma^2))."""
    n, d = x_ND.shape
    k_NN = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            distance2 = sum((float(x_ND[i, k]) - float(x_ND[j, k])) ** 2 for k in range(d))
            k_NN[i, j] = math.exp(-distance2 / (2.0 * sigma**2))
    return k_NN


def frossl(
    z_VND: np.ndarray,
    *,
    invariance_weight: float = 1.0,
    view_scaling: str = "unbiased",
    centre: bool = False,
    normalise: str = "batch",
    log: bool = True,
    kernel: str = "linear",
) -> dict[str, float]:
    """L = sum_v log ||C_v / tr C_v||_F^2 + w s(V) / N sum_v ||Zh_v - mean_v Zh||_F^2, with C_v = Zh_v^T Zh_v.

    "entropy" is the first sum (log=False: without the log), "invariance" the second, weighted, "total" both.
    """
    z_VND = np.array(z_VND, dtype=np.float64)
    v_count, n, d = z_VND.shape

    # Centre (option), then normalise, each view by itself.
    zh_VND = np.zeros(z_VND.shape)
    for v in range(v_count):
        z_ND = z_VND[v]
        if centre:
            z_ND = centre_columns(z_ND)
        if normalise == "batch":
            zh_VND[v] = unit_columns(z_ND)
        elif normalise == "sample":
            zh_VND[v] = unit_rows(z_ND)
        else:
            raise ValueError(f"normalise: {normalise!r}")

    # Entropy term: one matrix per view, divided by its actual trace.
    entropy = 0.0
    for v in range(v_count):
        if kernel == "linear":
            matrix = zh_VND[v].T @ zh_VND[v]  # D x D, always
        elif kernel == "gaussian":
            matrix = gaussian_kernel(math.sqrt(d) * zh_VND[v], sigma=math.sqrt(d / 2.0))  # N x N
        else:
            raise ValueError(f"kernel: {kernel!r}")
        frobenius2 = squared_frobenius(divide_by_trace(matrix))
        entropy += math.log(frobenius2) if log else frobenius2

    # Invariance term: squared distance of every view to the mean view.
    if view_scaling == "pairs":
        s = float(v_count)
    elif view_scaling == "mean":
        s = 1.0
    elif view_scaling == "unbiased":
        if v_count < 2:
            raise ValueError("view_scaling='unbiased' needs at least two views")
        s = v_count / (v_count - 1.0)
    else:
        raise ValueError(f"view_scaling: {view_scaling!r}")

    mean_ND = np.zeros((n, d))
    for v in range(v_count):
        mean_ND += zh_VND[v] / v_count
    spread = 0.0
    for v in range(v_count):
        spread += squared_frobenius(zh_VND[v] - mean_ND)
    invariance = invariance_weight * s / n * spread

    return {"total": entropy + invariance, "entropy": entropy, "invariance": invariance}


def legacy_two_view(z_a: np.ndarray, z_b: np.ndarray, invariance_weight: float = 1.0) -> float:
    """Deprecated two-view form: standardised columns, w mse(a, b) + 2 log ||K_a||_F + 2 log ||K_b||_F."""
    views = []
    for z in (z_a, z_b):
        z_ND = np.array(z, dtype=np.float64)
        n, d = z_ND.shape
        # 1. Standardise each column, unbiased standard deviation, no epsilon.
        standardised_ND = np.zeros((n, d))
        for j in range(d):
            mean = sum(z_ND[:, j]) / n
            variance = sum((x - mean) ** 2 for x in z_ND[:, j]) / (n - 1)
            if variance == 0.0:
                raise ValueError(f"column {j} is constant: the legacy form is undefined")
            standardised_ND[:, j] = (z_ND[:, j] - mean) / math.sqrt(variance)
        # 2. Unit columns times sqrt(D).
        views.append(math.sqrt(d) * unit_columns(standardised_ND))
    a_ND, b_ND = views

    # 3. Mean squared difference over all N * D entries.
    mse = squared_frobenius(a_ND - b_ND) / (n * d)

    # 4. 2 log of the Frobenius norm of each trace-normalised matrix.
    total = invariance_weight * mse
    for x_ND in (a_ND, b_ND):
        k_DD = divide_by_trace(x_ND.T @ x_ND)
        total += 2.0 * math.log(math.sqrt(squared_frobenius(k_DD)))
    return total


def gradient(z_VND: np.ndarray, **options: Any) -> np.ndarray:
    """Gradient of `frossl(...)["total"]` by central differences, one entry at a time, step 1e-6.

    The step is absolute: use entries of order one. Meaningless at a zero column (or zero row for "sample", or
    constant column with centre=True), where the loss jumps.
    """
    step = 1e-6
    z_VND = np.array(z_VND, dtype=np.float64)
    gradient_VND = np.zeros(z_VND.shape)
    for index in np.ndindex(z_VND.shape):
        plus_VND = z_VND.copy()
        plus_VND[index] += step
        minus_VND = z_VND.copy()
        minus_VND[index] -= step
        difference = frossl(plus_VND, **options)["total"] - frossl(minus_VND, **options)["total"]
        gradient_VND[index] = difference / (plus_VND[index] - minus_VND[index])
    return gradient_VND
