"""SimSiam: a view predicts the projection of another view, through which no gradient flows.

Chen and He, "Exploring Simple Siamese Representation Learning", arXiv 2011.10566, equation 4.
"""

from __future__ import annotations

from frossl.core.axes import Views
from frossl.core.linalg import unit_rows
from frossl.core.types import Loss
from frossl.losses.base import embeddings, make_loss, register_loss
from frossl.losses.targets import across_views, detached_targets


@register_loss
def simsiam(prediction: Views, z: Views) -> Loss:
    """Negative cosine of the predictions of V views and the projections of the G first of them, symmetrised.

        total = mean over views u, targets g of other views and images of  - cos(prediction_u, z_g)

    Args:
        prediction: ``(V, N, D)`` predictions or V tensors ``(N, D)``, V >= 2; any floating dtype.
        z: ``(G, N, D)``, 1 <= G <= V: projections of the first G views; stopped.

    Returns:
        Loss: ``total`` in [-1, 1] and its one term ``similarity``.

    Raises:
        UserError: wrong shapes.

    At V = G = 2 this is the published form. Cost linear in V.

    >>> import torch
    >>> z = torch.eye(4).expand(2, 4, 4)
    >>> simsiam(z, z).total.item()
    -1.0
    """
    prediction_VND = embeddings(prediction)
    cosine = across_views(unit_rows(prediction_VND), unit_rows(detached_targets(z, prediction_VND)))
    return make_loss(similarity=-cosine)
