"""Decoupled contrastive learning: NT-Xent whose denominator holds negatives only.

Yeh et al., "Decoupled Contrastive Learning", arXiv 2110.06848, equation 6.
"""

from __future__ import annotations

import torch

from frossl.core.axes import Views, fold
from frossl.core.linalg import unit_rows
from frossl.core.types import Loss, UserError
from frossl.losses.base import embeddings, make_loss, register_loss
from frossl.losses.targets import across_views


@register_loss
def dcl(z: Views, *, temperature: float = 0.1) -> Loss:
    """SimCLR with attraction and repulsion decoupled, which does with smaller batches.

    Each of the V N samples is an anchor. With cosines c between it and another sample::

        total = mean over anchors of  - mean of c / temperature over its image's other views
                                      + log sum of exp(c / temperature) over all views of the other images

    Args:
        z: ``(V, N, D)`` projections or V tensors ``(N, D)``, V >= 2; any floating dtype.
        temperature: divides the cosines.

    Returns:
        Loss: ``total``, which can be negative, and its one term ``contrastive``.

    Raises:
        UserError: wrong shapes, or only one image in the global batch, which leaves no negatives.

    V = 2 is the published form, averaged where the paper sums over images and both directions. The public code takes
    one direction per call and leaves a weight of 1e-45 on the positives in the denominator, which shows at
    temperatures near 0.01; here they are out. Time and memory grow with (V N)^2.

    >>> z = torch.eye(4).expand(3, 4, 4)
    >>> f"{dcl(z, temperature=1.0).total:.4f}"  # log 9 - 1
    '1.1972'
    """
    z_VND = unit_rows(embeddings(z))
    views, images, _ = z_VND.shape
    if images < 2:
        raise UserError("dcl compares an image with others, but the batch holds one image: use a larger batch")
    z_BD = fold(z_VND)
    own_image_BB = torch.eye(images, dtype=torch.bool, device=z_BD.device).repeat(views, views)
    negatives_B = (z_BD @ z_BD.T / temperature).masked_fill(own_image_BB, -torch.inf).logsumexp(1)
    return make_loss(contrastive=negatives_B.mean() - across_views(z_VND, z_VND) / temperature)
