"""DINO: a view predicts the centred, sharpened output of a moving average of the network for another view.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", arXiv 2104.14294, equations 2 to 4.
"""

from __future__ import annotations

from torch import Tensor

from frossl.core.axes import Views
from frossl.core.types import Loss, UserError
from frossl.losses.base import embeddings, make_loss, register_loss, upcast
from frossl.losses.targets import across_views, detached_targets


@register_loss
def dino(
    student: Views,
    teacher: Views,
    centre: Tensor,
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    centre_momentum: float = 0.9,
) -> Loss:
    """Cross entropy of V student views with the teacher's outputs for the G first of them.

        total = mean over views u, teacher views g != u and images of
                - sum over k of  softmax((teacher_g - centre) / teacher_temperature)_k
                                 * log softmax(student_u / student_temperature)_k

    Args:
        student: ``(V, N, K)`` scores, or V tensors ``(N, K)``, V >= 2; any floating dtype.
        teacher: ``(G, N, K)``, 1 <= G <= V: scores of the first G views by the averaged network; stopped.
        centre: ``(K,)`` running mean of teacher scores, the same on all ranks; stopped.
        student_temperature: divides the student's scores.
        teacher_temperature: divides the teacher's; smaller than the student's, which sharpens the targets.
        centre_momentum: weight of the old centre in the new one.

    Returns:
        Loss: ``total``, its one term ``distillation``, and state ``centre``, moved towards the mean teacher score of
        the global batch.

    Raises:
        UserError: wrong shapes.

    As in the public code, which averages over pairs where the paper's equation 3 adds them. Cost linear in V.
    """
    student_VNK = embeddings(student)
    teacher_GNK = detached_targets(teacher, student_VNK)
    centre_K = upcast(centre.detach())
    if centre_K.shape != teacher_GNK.shape[2:]:
        raise UserError(f"the centre must be ({teacher_GNK.shape[2]},) like a score, got {tuple(centre_K.shape)}")
    target_GNK = ((teacher_GNK - centre_K) / teacher_temperature).softmax(2)
    log_probabilities_VNK = (student_VNK / student_temperature).log_softmax(2)
    moved_K = centre_momentum * centre_K + (1 - centre_momentum) * teacher_GNK.mean((0, 1))
    return make_loss({"centre": moved_K}, distillation=-across_views(log_probabilities_VNK, target_GNK))
