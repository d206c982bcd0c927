"""SwAV: a view predicts the cluster assignment of another view; assignments use all clusters equally.

Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", arXiv 2006.09882,
equations 1 and 2; Sinkhorn's algorithm: appendix A.
"""

from __future__ import annotations

import torch
from torch import Tensor

from frossl.core.axes import Views
from frossl.core.distributed import all_gather_stacked
from frossl.core.types import Loss, UserError
from frossl.losses.base import embeddings, make_loss, register_loss, upcast
from frossl.losses.targets import across_views, detached_targets


@register_loss
def swav(scores: Views, assignments: Views, *, temperature: float = 0.1) -> Loss:
    """Cross entropy of V views' cluster probabilities with the assignments of the G first of them, swapped.

        total = mean over views u, assignments g of other views and images of
                - sum over clusters k of  assignments_gk * log softmax(scores_u / temperature)_k

    Args:
        scores: ``(V, N, K)`` cosines with K prototypes, or V tensors ``(N, K)``, V >= 2; any floating dtype.
        assignments: ``(G, N, K)``, 1 <= G <= V: of the first G views, rows that sum to 1, from :func:`sinkhorn`;
            stopped.
        temperature: divides the scores.

    Returns:
        Loss: ``total`` and its one term ``swapped``.

    Raises:
        UserError: wrong shapes.

    At V = G = 2 this is the mean of the published two directions, as in the public code; the paper's equation 1 adds
    them. Cost linear in V.
    """
    scores_VNK = embeddings(scores)
    log_probabilities_VNK = (scores_VNK / temperature).log_softmax(2)
    return make_loss(swapped=-across_views(log_probabilities_VNK, detached_targets(assignments, scores_VNK)))


@torch.no_grad()
def sinkhorn(scores: Tensor, queue: Tensor | None = None, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Soft assignments of samples to prototypes that use all prototypes equally over the global batch.

    Starts at exp(scores / epsilon); each iteration scales all prototypes to equal mass, then all samples.

    Args:
        scores: ``(B, K)`` cosines of this rank's samples with K prototypes, or ``(..., B, K)`` for several batches.
        queue: ``(..., Q, K)`` scores of earlier samples, the same on all ranks, which count once for the prototypes.
        epsilon: small values give sharp assignments.
        iterations: at least 1.

    Returns:
        Tensor: like ``scores``, in float32 or wider, without gradient; rows sum to 1.

    Raises:
        UserError: no iterations.

    Done with logarithms, where scaling to equal mass is a log-softmax and no mass over- or underflows; ranks exchange
    K numbers per batch and iteration.

    >>> sinkhorn(torch.tensor([[1.0, 0.9], [1.0, 0.0]])).round(decimals=2)  # the first prototype has to be shared
    tensor([[0.1400, 0.8600],
            [1.0000, 0.0000]])
    """
    if iterations < 1:
        raise UserError(f"sinkhorn needs at least 1 iteration, got {iterations}")
    log_q = upcast(scores) / epsilon
    log_queue = log_q[..., :0, :] if queue is None else upcast(queue) / epsilon
    for _ in range(iterations):
        masses = torch.cat([*all_gather_stacked(log_q.logsumexp(-2, keepdim=True)), log_queue], dim=-2)
        mass = masses.logsumexp(-2, keepdim=True)
        log_q, log_queue = ((x - mass).log_softmax(-1) for x in (log_q, log_queue))
    return log_q.exp()
