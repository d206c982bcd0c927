"""Folds views into the batch and back: the only place that decides the order of views.

The folded order is view-major: all N images of view 0, then all of view 1, and so on, so the labels of a folded batch
are all labels, repeated V times (:func:`fold_labels`).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from frossl.core.gradient import transformed
from frossl.core.types import UserError

Views = Tensor | Sequence[Tensor]
"""Of V views: ``(V, N, D)``, or V tensors ``(N, D)``."""


def fold(x_VN: Tensor) -> Tensor:
    """``(V, N, ...)`` to ``(V * N, ...)``, view-major."""
    return x_VN.flatten(0, 1)


def unfold(x_B: Tensor, views: int) -> Tensor:
    """``(V * N, ...)`` to ``(V, N, ...)``: the inverse of :func:`fold`."""
    return x_B.unflatten(0, (views, -1))


def over_views(network: Callable[[Tensor], Tensor], x_VN: Tensor, joint: bool) -> Tensor:
    """Applies ``network`` to all views, ``(V, N, ...)`` to ``(V, N, ...)``.

    With ``joint`` its batch norms take statistics over all V N samples, otherwise of each view by itself, as in the
    public reference.
    """
    if joint:
        return unfold(network(fold(x_VN)), len(x_VN))
    return torch.stack([network(x) for x in x_VN])


def fold_labels(y_N: Tensor, views: int) -> Tensor:
    """``(N,)`` labels to ``(V * N,)`` in the order of :func:`fold`."""
    return y_N.repeat(views)


def as_tensors(z: Views) -> Sequence[Tensor]:
    """``z`` as a sequence of tensors; raises UserError if it is neither a tensor nor a list or tuple of tensors."""
    tensors = [z] if isinstance(z, Tensor) else z
    if not isinstance(tensors, list | tuple) or not all(isinstance(v, Tensor) for v in tensors):
        given = f"{type(z).__name__} of {type(z[0]).__name__}" if isinstance(z, list | tuple) else type(z).__name__
        raise UserError(f"embeddings must be a tensor (V, N, D) or a list of tensors (N, D), got {given}")
    return tensors


def as_tensor(z: Views) -> Tensor:
    """``z`` as one tensor; raises UserError if it holds no tensors, or tensors of different shapes."""
    views = as_tensors(z)
    if isinstance(z, Tensor):
        return z
    shapes = [tuple(v.shape) for v in views]
    if len(set(shapes)) > 1:
        raise UserError(f"all views must have one shape (N, D), got {shapes}")
    return torch.stack(list(views)) if shapes else torch.empty(0)


def stack_views(z: Views) -> Tensor:
    """Embeddings of V views as one ``(V, N, D)`` tensor; accepts that tensor or V tensors ``(N, D)``.

    Warns of one tensor with more views than images, which may be ``(N, V, D)``, unless a method or a training step
    calls.

    Raises:
        UserError: no tensors, fewer than two views, unequal shapes, or integer embeddings.
    """
    one_tensor, z = isinstance(z, Tensor), as_tensor(z)
    if z.ndim != 3 or z.shape[0] < 2 or z.shape[1] < 1 or z.shape[2] < 1:
        raise UserError(
            f"embeddings must be (V, N, D) with at least 2 views, or a list of at least 2 tensors (N, D); "
            f"got shape {tuple(z.shape)}"
        )
    if not z.is_floating_point():
        raise UserError(f"embeddings must be floating point, got {z.dtype}")
    if one_tensor and z.shape[0] > z.shape[1] and not transformed() and (level := _level_of_caller()):
        warnings.warn(
            f"embeddings {tuple(z.shape)} are read as {z.shape[0]} views of {z.shape[1]} images, (V, N, D). If they "
            "are (N, V, D), write z.transpose(0, 1); if there are more views than images, a list of V tensors (N, D)",
            stacklevel=level,
        )
    return z


def _level_of_caller() -> int | None:
    """The ``stacklevel``, for a warning of the caller, of the line that calls a loss.

    None if a method or a training step is anywhere up the stack, as they know their axes.
    """
    frame, depth, level = sys._getframe(1), 1, None
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        inside = module.startswith(("frossl.losses.", "frossl.core."))
        if module.startswith("frossl.") and not inside:
            return None
        if level is None and not inside and not module.startswith("torch."):
            level = depth
        frame, depth = frame.f_back, depth + 1
    return level
