"""NT-Xent, the objective of SimCLR: contrasts an image's views with the views of all other images.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", arXiv 2002.05709, equation 1.
"""

from __future__ import annotations

import torch

from frossl.core.axes import Views, fold
from frossl.core.linalg import unit_rows
from frossl.core.types import Loss
from frossl.losses.base import embeddings, make_loss, register_loss


@register_loss
def ntxent(z: Views, *, temperature: float = 0.1) -> Loss:
    """Contrasts the views of an image with the views of all other images of the batch.

    Normalised-temperature cross entropy of V views: each of the V N samples is an anchor. With s =
    exp(cosine / temperature) between it and another sample::

        total = mean over anchors of  - log( sum of s over its image's other views / sum of s over all other samples )

    Args:
        z: ``(V, N, D)`` projections or V tensors ``(N, D)``, V >= 2; any floating dtype.
        temperature: divides the cosines; small values weigh the most similar images most (paper: 0.1 for ImageNet, 0.5
            for CIFAR-10).

    Returns:
        Loss: ``total`` and its one term ``contrastive``. One image alone has no negatives and the loss 0.

    Raises:
        UserError: wrong shapes.

    V = 2 is the published form. For more views the positives are summed inside the logarithm, as in the public
    reference of the FroSSL paper; negatives come from all ranks. Time and memory grow with (V N)^2.

    >>> z = torch.eye(4).expand(3, 4, 4)
    >>> f"{ntxent(z, temperature=1.0).total:.4f}"  # log(1 + 9 / 2e): 2 positives, 9 negatives
    '0.9766'
    """
    z_VND = unit_rows(embeddings(z))
    views, images, _ = z_VND.shape
    z_BD = fold(z_VND)
    logits_BB = (z_BD @ z_BD.T / temperature).fill_diagonal_(-torch.inf)
    logits_VNVN = logits_BB.view(views, images, views, images)
    positives_VVN = logits_VNVN.diagonal(dim1=1, dim2=3)
    loss_VN = logits_BB.logsumexp(1).view(views, images) - positives_VVN.logsumexp(1)
    return make_loss(contrastive=loss_VN.mean())
