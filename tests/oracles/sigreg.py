"""SIGReg of LeJEPA, Balestriero and LeCun, arXiv 2511.08544: sketched Epps-Pulley test of normality, prediction."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from oracles import basics

EMBEDDINGS = ("z",)
SHARDED = {"z": 1}
OPTIONS = ({}, {"weight": 0.3, "large": 1}, {"weight": 0.7, "large": 2, "knots": 6, "reach": 4.0})


def rotation(random: np.random.Generator, arguments: basics.Arguments) -> basics.Arguments:
    matrix = basics.rotation_matrix(random, arguments["z"].shape[-1])
    return arguments | {"z": arguments["z"] @ matrix, "directions": matrix.T @ arguments["directions"]}


def other_directions(random: np.random.Generator, arguments: basics.Arguments) -> basics.Arguments:
    """The same lines in another order, of any length, either way round."""
    directions = arguments["directions"]
    directions = directions[:, random.permutation(directions.shape[1])]
    return arguments | {"directions": directions * random.choice([-3.0, -0.5, 2.0], size=directions.shape[1])}


INVARIANCES = {
    "order of images": basics.other_order_of_images(SHARDED),
    "order of views": basics.other_order_of_views("z", large="large"),
    "rotation": rotation,
    "order, length and sign of directions": other_directions,
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    return {"z": basics.related_views(random, views, images, width), "directions": random.normal(size=(width, 5))}


def epps_pulley(x_N: np.ndarray, knots: int, reach: float) -> float:
    """N times the weighted integral over [-reach, reach], by the trapezoidal rule between ``2 knots - 1`` knots."""
    step = reach / (knots - 1)
    values = []
    for i in range(-(knots - 1), knots):
        t = i * step
        real = basics.mean(math.cos(t * x) for x in x_N)
        imaginary = basics.mean(math.sin(t * x) for x in x_N)
        normal = math.exp(-(t**2) / 2)
        values.append(((real - normal) ** 2 + imaginary**2) * normal)
    area = sum((left + right) / 2 * step for left, right in pairwise(values))
    return len(x_N) * area


def loss(
    z: np.ndarray,
    directions: np.ndarray,
    *,
    weight: float = 0.02,
    large: int | None = None,
    knots: int = 17,
    reach: float = 3.0,
) -> dict[str, float]:
    lines = [basics.unit(line) for line in directions.T]
    statistics = []
    for z_ND in z:
        for line in lines:
            projection = np.array([basics.dot(row, line) for row in z_ND])
            statistics.append(epps_pulley(projection, knots, reach))
    targets = z[: len(z) if large is None else large]
    centre = sum(targets) / len(targets)
    return {
        "gaussianity": weight * basics.mean(statistics),
        "prediction": (1 - weight) * basics.mean(basics.mean_square(z_ND - centre) for z_ND in z),
    }
