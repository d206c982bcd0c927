from __future__ import annotations

import pytest
import torch

from frossl.core.axes import fold, fold_labels, stack_views, unfold
from frossl.core.types import UserError


@pytest.mark.parametrize("shape", [(2, 3), (3, 4, 5), (5, 2, 3, 4, 4), (4, 1, 2)])
def test_unfold_inverts_fold(shape):
    x = torch.arange(torch.Size(shape).numel()).reshape(shape)
    folded = fold(x)
    assert folded.shape == (shape[0] * shape[1], *shape[2:])
    assert torch.equal(unfold(folded, shape[0]), x)


def test_fold_is_view_major():
    views, images = 3, 4
    x = torch.tensor([[10 * v + n for n in range(images)] for v in range(views)])
    assert fold(x).tolist() == [10 * v + n for v in range(views) for n in range(images)]


def test_fold_labels_meets_the_images_they_belong_to():
    views, y = 3, torch.tensor([7, 1, 4, 1])
    images_that_show_their_label = y.expand(views, -1)
    assert torch.equal(fold_labels(y, views), fold(images_that_show_their_label))


def test_stack_views_of_a_list_is_the_tensor():
    z = torch.randn(3, 4, 2)
    assert torch.equal(stack_views(list(z)), z)
    assert torch.equal(stack_views(tuple(z)), z)
    assert stack_views(z) is z


@pytest.mark.parametrize(
    ("z", "says"),
    [
        (torch.randn(4, 3), r"got shape \(4, 3\)"),
        (torch.randn(1, 4, 3), r"at least 2 views.*got shape \(1, 4, 3\)"),
        (torch.randn(2, 0, 3), r"got shape \(2, 0, 3\)"),
        (torch.randn(2, 4, 0), r"got shape \(2, 4, 0\)"),
        (torch.randn(2, 4, 3, 3), r"got shape \(2, 4, 3, 3\)"),
        ([], "at least 2 views"),
        ([torch.randn(4, 3)], r"got shape \(1, 4, 3\)"),
        ([torch.randn(4, 3), torch.randn(4, 2)], r"one shape.*\(4, 3\), \(4, 2\)"),
        ([torch.randn(4, 3), torch.randn(5, 3)], r"one shape.*\(4, 3\), \(5, 3\)"),
        (torch.ones(2, 4, 3, dtype=torch.int64), "got torch.int64"),
        (torch.ones(2, 4, 3, dtype=torch.complex64), "got torch.complex64"),
    ],
)
def test_stack_views_names_what_is_wrong(z, says):
    with pytest.raises(UserError, match=says):
        stack_views(z)


@pytest.mark.parametrize(
    ("z", "given"),
    [
        ("views", "str"),
        ([[1.0, 2.0], [3.0, 4.0]], "list of list"),
        ((x for x in torch.zeros(2, 3, 4)), "generator"),
    ],
)
def test_what_is_no_tensor_is_refused_by_its_name(z, given):
    with pytest.raises(UserError, match=f"got {given}$"):
        stack_views(z)
