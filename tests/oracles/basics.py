"""What several oracles share: unit rows, pairs of views, sample arguments, transformations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

Arguments = dict[str, Any]
Transformation = Callable[[np.random.Generator, Arguments], Arguments | None]


def unit(x: np.ndarray) -> np.ndarray:
    """A vector divided by its L2 norm; the zero vector stays."""
    norm = math.sqrt(sum(float(entry) ** 2 for entry in x))
    return x / norm if norm > 0 else np.zeros(x.shape)


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Every vector along the last axis divided by its L2 norm."""
    rows = [unit(row) for row in x.reshape(-1, x.shape[-1])]
    return np.stack(rows).reshape(x.shape)


def dot(a: np.ndarray, b: np.ndarray) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def mean(numbers: Iterable[float]) -> float:
    numbers = list(numbers)
    return math.fsum(numbers) / len(numbers)


def mean_cosine(a_ND: np.ndarray, b_ND: np.ndarray) -> float:
    """Mean over rows of the cosine between row n of ``a`` and row n of ``b``."""
    return mean(dot(unit(a), unit(b)) for a, b in zip(a_ND, b_ND, strict=True))


def mean_square(x: np.ndarray) -> float:
    return mean(float(entry) ** 2 for entry in x.flatten())


def log_sum_exp(numbers: Iterable[float]) -> float:
    numbers = list(numbers)
    top = max(numbers)
    return top + math.log(math.fsum(math.exp(x - top) for x in numbers))


def log_softmax(numbers: np.ndarray) -> np.ndarray:
    return numbers - log_sum_exp(float(x) for x in numbers)


def unordered_pairs(views: int) -> list[tuple[int, int]]:
    """All u < v."""
    return [(u, v) for u in range(views) for v in range(u + 1, views)]


def crossed_pairs(views: int, targets: int) -> list[tuple[int, int]]:
    """All view u with target g, u != g."""
    return [(u, g) for u in range(views) for g in range(targets) if u != g]


# Sample arguments


def related_views(random: np.random.Generator, views: int, images: int, width: int) -> np.ndarray:
    """Views that are alike, as they are of one image, neither centred nor of one length."""
    shared = random.normal(size=(1, images, width)) + 0.3
    lengths = random.uniform(0.5, 2.0, size=(views, images, 1))
    return (shared + 0.5 * random.normal(size=(views, images, width))) * lengths


def some_targets(random: np.random.Generator, x_VND: np.ndarray) -> np.ndarray:
    """Targets for the first views, now all of them, now fewer, each like the view it belongs to."""
    targets = len(x_VND) if random.random() < 0.5 else int(random.integers(1, len(x_VND) + 1))
    return x_VND[:targets] + 0.5 * random.normal(size=(targets, *x_VND.shape[1:]))


# Transformations under which losses may stay as they are


def other_order_of_images(sharded: Mapping[str, int]) -> Transformation:
    def transform(random: np.random.Generator, arguments: Arguments) -> Arguments:
        first, axis = next(iter(sharded.items()))
        order = random.permutation(arguments[first].shape[axis])
        return arguments | {name: np.take(arguments[name], order, axis) for name, axis in sharded.items()}

    return transform


def other_order_of_views(*names: str, large: str | None = None) -> Transformation:
    """One new order of the views that all of ``names`` have, and of those that only some have.

    ``large`` names the option that says how many views, the first, play another part than the rest.
    """

    def transform(random: np.random.Generator, arguments: Arguments) -> Arguments:
        counts = [len(arguments[name]) for name in names]
        few, many = min(counts), max(counts)
        if large and arguments.get(large) is not None:
            few = arguments[large]
        order = np.concatenate([random.permutation(few), few + random.permutation(many - few)])
        return arguments | {name: arguments[name][order[: len(arguments[name])]] for name in names}

    return transform


def longer_rows(*names: str) -> Transformation:
    """Every row times a positive number of its own."""

    def transform(random: np.random.Generator, arguments: Arguments) -> Arguments:
        def scaled(x: np.ndarray) -> np.ndarray:
            return x * 10 ** random.uniform(-3, 3, size=(*x.shape[:-1], 1))

        return arguments | {name: scaled(arguments[name]) for name in names}

    return transform


def rotation_matrix(random: np.random.Generator, width: int) -> np.ndarray:
    return np.linalg.qr(random.normal(size=(width, width)))[0]


def rotation(*names: str) -> Transformation:
    """One rotation or reflection of the last axis of all."""

    def transform(random: np.random.Generator, arguments: Arguments) -> Arguments:
        matrix = rotation_matrix(random, arguments[names[0]].shape[-1])
        return arguments | {name: arguments[name] @ matrix for name in names}

    return transform


def other_order_of_columns(*names: str) -> Transformation:
    def transform(random: np.random.Generator, arguments: Arguments) -> Arguments:
        order = random.permutation(arguments[names[0]].shape[-1])
        return arguments | {name: arguments[name][..., order] for name in names}

    return transform


def other_signs_of_columns(*names: str) -> Transformation:
    def transform(random: np.random.Generator, arguments: Arguments) -> Arguments:
        signs = random.choice([-1.0, 1.0], size=arguments[names[0]].shape[-1])
        return arguments | {name: arguments[name] * signs for name in names}

    return transform


def longer_columns(name: str) -> Transformation:
    """Every column of every view times a positive number of its own."""

    def transform(random: np.random.Generator, arguments: Arguments) -> Arguments:
        views, _, width = arguments[name].shape
        return arguments | {name: arguments[name] * 10 ** random.uniform(-2, 2, size=(views, 1, width))}

    return transform


def shifted_columns(name: str, alike: bool) -> Transformation:
    """A number added to every column, of all views or (not ``alike``) of each view."""

    def transform(random: np.random.Generator, arguments: Arguments) -> Arguments:
        views, _, width = arguments[name].shape
        return arguments | {name: arguments[name] + random.normal(size=(1 if alike else views, 1, width))}

    return transform


def shifted_rows(name: str) -> Transformation:
    """A number added to every row."""

    def transform(random: np.random.Generator, arguments: Arguments) -> Arguments:
        x = arguments[name]
        return arguments | {name: x + random.normal(size=(*x.shape[:-1], 1))}

    return transform
