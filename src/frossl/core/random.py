"""Random numbers as a function of what they are for, so that nothing depends on the order of drawing."""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection of 64 bits that scatters neighbours."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def seed_of(*keys: int) -> int:
    """A seed for a generator, a pure function of the keys.

    >>> seed_of(0, 3) == seed_of(0, 3) != seed_of(0, 4)
    True
    """
    return int(uniforms(1, *keys, len(keys)).item() * 2**53)


def uniforms(count: int, *keys: int | np.ndarray) -> np.ndarray:
    """Uniform float64 numbers in [0, 1), shape ``broadcast(keys) + (count,)``, a pure function of the keys.

    Keys are non-negative integers or integer arrays, for instance (seed, epoch, sample indices, view).

    >>> bool((uniforms(3, 7, np.arange(4))[2] == uniforms(3, 7, np.array([2]))[0]).all())
    True
    """
    with np.errstate(over="ignore"):
        state = np.zeros((1,), np.uint64)
        for key in keys:
            state = _mix(state + _GOLDEN + np.asarray(key, np.uint64)[..., None])
        bits = _mix(state + _GOLDEN * (1 + np.arange(count, dtype=np.uint64)))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
