"""MMCR: nuclear norm of the images' mean embeddings.

Yerxa et al., "Learning Efficient Coding of Natural Images with Maximum Manifold Capacity Representations",
arXiv 2303.03307.
"""

from __future__ import annotations

from frossl.core.axes import Views
from frossl.core.linalg import nuclear_norm, unit_rows
from frossl.core.types import Loss
from frossl.losses.base import embeddings, make_loss, register_loss


@register_loss
def mmcr(z: Views) -> Loss:
    """Spreads the images' mean embeddings, which are long only where an image's views agree.

    MMCR of V views: minus the nuclear norm (sum of singular values) of the mean over views of unit rows. It is shorter
    the more an image's views differ, so that no other term is needed.

    Args:
        z: ``(V, N, D)`` projections or V tensors ``(N, D)``, V >= 2.

    Returns:
        Loss: term ``nuclear_norm``, in [-sqrt(N min(N, D)), 0].

    Raises:
        UserError: wrong shapes.

    Other code has a second term, the weighted nuclear norms within each image's views; it is left out here as in the
    code published with FroSSL. Cost: one decomposition for any V: eigenvalues of N x N or D x D, whichever is smaller,
    or, where N is about D, the singular values.
    """
    z_VND = unit_rows(embeddings(z))
    return make_loss(nuclear_norm=-nuclear_norm(z_VND.mean(0, keepdim=True)).to(z_VND.dtype))
