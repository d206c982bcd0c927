"""Cross entropy with labels: the supervised arm of a comparison."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from frossl.core.axes import Views, fold, fold_labels
from frossl.core.gradient import readable
from frossl.core.types import Loss, UserError
from frossl.losses.base import embeddings, make_loss, register_loss
from frossl.losses.targets import class_numbers


@register_loss
def cross_entropy(logits: Views, labels: Tensor) -> Loss:
    """Softmax cross entropy of V views, mean over views and labelled images.

    Args:
        logits: ``(V, N, K)`` for K classes, or V tensors ``(N, K)``, V >= 2; any floating dtype.
        labels: ``(N,)`` class numbers, -1 (or less) where unknown: such images are left out.

    Returns:
        Loss: ``total`` and its one term ``cross_entropy``.

    Raises:
        UserError: wrong shapes; on the CPU, no label in the global batch, or one that is not below K. On an accelerator
            the first gives NaN and the second stops the device, so that no step waits for it.

    >>> import torch
    >>> f"{cross_entropy(torch.zeros(2, 3, 4), torch.tensor([0, 3, -1])).total:.4f}"  # log 4
    '1.3863'
    """
    logits_VNK = embeddings(logits)
    views, images, classes = logits_VNK.shape
    labels_N = class_numbers(labels, images).clamp_min(-1)
    highest = int(labels_N.max()) if readable(labels_N) else 0
    if highest < 0:
        raise UserError("cross_entropy: no image of the batch has a label (all are -1); it learns from labels only")
    if highest >= classes:
        raise UserError(f"cross_entropy: label {highest} is not one of the {classes} classes, 0 to {classes - 1}")
    loss = functional.cross_entropy(fold(logits_VNK), fold_labels(labels_N, views), ignore_index=-1)
    return make_loss(cross_entropy=loss)
