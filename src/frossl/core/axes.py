"""Folding views into the batch and back: the only place where the order of views is decided.

Folded order is view-major: all N images of view 0, then all of view 1, and so on, so labels of a
folded batch are the labels repeated V times as a block, which is what :func:`fold_labels` does.
"""

from __future__ import annotations

from torch import Tensor


def fold(x_VN: Tensor) -> Tensor:
    """``(V, N, ...)`` to ``(V * N, ...)``, view-major."""
    return x_VN.flatten(0, 1)


def unfold(x_B: Tensor, views: int) -> Tensor:
    """``(V * N, ...)`` to ``(V, N, ...)``: the inverse of :func:`fold`."""
    return x_B.unflatten(0, (views, -1))


def fold_labels(y_N: Tensor, views: int) -> Tensor:
    """``(N,)`` labels to ``(V * N,)`` in the order of :func:`fold`."""
    return y_N.repeat(views)
