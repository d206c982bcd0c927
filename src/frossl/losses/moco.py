"""MoCo: contrasts a view with a queue of earlier images, encoded by a moving average of the network.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", arXiv 1911.05722, equation 1;
Chen et al., "Improved Baselines with Momentum Contrastive Learning", arXiv 2003.04297.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from frossl.core.axes import Views
from frossl.core.linalg import unit_rows
from frossl.core.types import Loss, UserError
from frossl.losses.base import embeddings, make_loss, register_loss
from frossl.losses.targets import detached_targets


@register_loss
def moco(query: Views, key: Views, queue: Tensor, *, temperature: float = 0.2) -> Loss:
    """Momentum contrast of V views with the G first of them, symmetrised.

    With unit queries q and keys k, for a view u and the key of another view g::

        total = mean over u, g and images of  - log( exp(q_u k_g / temperature)
                    / (exp(q_u k_g / temperature) + sum over queue_g of exp(q_u queue_g / temperature)) )

    Args:
        query: ``(V, N, D)`` projections or V tensors ``(N, D)``, V >= 2; any floating dtype.
        key: ``(G, N, D)``, 1 <= G <= V: projections of the first G views by the averaged network; stopped.
        queue: ``(G, Q, D)`` earlier unit keys, one queue per key view, the same on all ranks; stopped.
        temperature: divides the cosines.

    Returns:
        Loss: ``total``, its one term ``contrastive``, and state ``queue`` with the keys of the global batch in front.

    Raises:
        UserError: wrong shapes.

    At V = G = 2 it is the mean of both directions, each with a queue of its own, as in the public reference; the
    paper has one direction and one queue. Keys are stored from all ranks. Time and memory grow with V G N Q;
    a loop over the G queues leaves each view's own queue out.
    """
    query_VND = unit_rows(embeddings(query))
    key_GND = unit_rows(detached_targets(key, query_VND))
    queue_GQD = queue.detach().to(query_VND.dtype)
    targets, _, width = key_GND.shape
    if queue_GQD.ndim != 3 or queue_GQD.shape[::2] != (targets, width) or queue_GQD.shape[1] < 1:
        raise UserError(f"the queue must be (G, Q, D) for keys {tuple(key_GND.shape)}, got {tuple(queue_GQD.shape)}")
    losses = []
    for g in range(targets):
        others_UND = torch.cat([query_VND[:g], query_VND[g + 1 :]])
        positive_UN = (others_UND * key_GND[g]).sum(2) / temperature
        negatives_UN = (others_UND @ queue_GQD[g].T / temperature).logsumexp(2)
        losses.append(-logsigmoid(positive_UN - negatives_UN).mean())
    newest_GQD = torch.cat([key_GND, queue_GQD], dim=1)[:, : queue_GQD.shape[1]]
    return make_loss({"queue": newest_GQD}, contrastive=torch.stack(losses).mean())
