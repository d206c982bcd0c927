"""BYOL: a view predicts what a moving average of the network makes of another view.

Grill et al., "Bootstrap your own latent", arXiv 2006.07733, equation 2.
"""

from __future__ import annotations

from frossl.core.axes import Views
from frossl.core.linalg import unit_rows
from frossl.core.types import Loss
from frossl.losses.base import embeddings, make_loss, register_loss
from frossl.losses.targets import across_views, detached_targets


@register_loss
def byol(prediction: Views, target: Views) -> Loss:
    """Squared distance of unit predictions of V views to unit targets of the G first of them, symmetrised.

        total = 2 * mean over views u, targets g of other views and images of  2 - 2 cos(prediction_u, target_g)

    Args:
        prediction: ``(V, N, D)`` predictions or V tensors ``(N, D)``, V >= 2; any floating dtype.
        target: ``(G, N, D)``, 1 <= G <= V: projections of the first G views by the averaged network; stopped.

    Returns:
        Loss: ``total`` in [0, 8] and its one term ``similarity``.

    Raises:
        UserError: wrong shapes.

    At V = G = 2 this is the published sum over both directions. Cost linear in V.

    >>> import torch
    >>> z = torch.eye(4).expand(2, 4, 4)
    >>> byol(z, z).total.item(), byol(z, -z).total.item()
    (0.0, 8.0)
    """
    prediction_VND = embeddings(prediction)
    cosine = across_views(unit_rows(prediction_VND), unit_rows(detached_targets(target, prediction_VND)))
    return make_loss(similarity=4 - 4 * cosine)
