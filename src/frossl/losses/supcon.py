"""Supervised contrastive loss: all images of a class attract each other.

Khosla et al., "Supervised Contrastive Learning", arXiv 2004.11362, equation 2 (L_out).
"""

from __future__ import annotations

import torch
from torch import Tensor

from frossl.core.axes import Views, fold, unfold
from frossl.core.linalg import unit_rows
from frossl.core.types import Loss
from frossl.losses.base import embeddings, make_loss, register_loss
from frossl.losses.targets import class_numbers


@register_loss
def supcon(z: Views, labels: Tensor, *, temperature: float = 0.1) -> Loss:
    """Supervised contrastive learning: with labels, draws the images of a class together.

    Each of the V N samples is an anchor i, its positives P(i) are all other samples of its class, in any view::

        total = mean over i of  - mean over p in P(i) of  log( exp(cos_ip / temperature)
                                                              / sum over a != i of exp(cos_ia / temperature) )

    Args:
        z: ``(V, N, D)`` projections or V tensors ``(N, D)``, V >= 2; any floating dtype.
        labels: ``(N,)`` class numbers, -1 where unknown. The positives of an image without a label are its own other
            views; it is a negative to all other images.
        temperature: divides the cosines.

    Returns:
        Loss: ``total`` and its one term ``contrastive``.

    Raises:
        UserError: wrong shapes, or labels that are not integers.

    The public code multiplies the loss by temperature / 0.07, a change of the learning rate; this is the equation.
    Positives and negatives come from all ranks. Time and memory grow with (V N)^2.

    >>> z = torch.eye(4).expand(2, 4, 4)
    >>> f"{supcon(z, torch.tensor([0, 0, 1, -1]), temperature=1.0).total:.4f}"  # log(e + 6) - (2 (1/3) + 2 (1)) / 4
    '1.4988'
    """
    z_VND = unit_rows(embeddings(z))
    views, images, _ = z_VND.shape
    labels_N = class_numbers(labels, images)
    z_BD = fold(z_VND)
    logits_BB = (z_BD @ z_BD.T / temperature).fill_diagonal_(-torch.inf)
    alike_NN = (labels_N[:, None] == labels_N) & (labels_N >= 0)
    alike_NN = alike_NN.fill_diagonal_(True).to(z_VND.dtype)
    # The mean cosine with the positives, without another (V N)^2 matrix: the anchor times the sum of its class.
    class_ND = alike_NN @ z_VND.sum(0)
    positive_VN = (z_VND * class_ND - z_VND * z_VND).sum(2) / (views * alike_NN.sum(1) - 1)
    loss_VN = unfold(logits_BB.logsumexp(1), views) - positive_VN / temperature
    return make_loss(contrastive=loss_VN.mean())
