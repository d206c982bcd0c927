from __future__ import annotations

import pytest
import torch

from frossl.nn.snapshot import Snapshot


@pytest.mark.parametrize("good", [None, 0.0, 1.0])
def test_values_are_put_back_unless_the_step_was_good(good):
    tensors = [
        torch.rand(3),
        torch.tensor(4),
        torch.rand(2, 3, 2, 2).to(memory_format=torch.channels_last),
        torch.rand(()),
    ]
    before = [x.clone() for x in tensors]
    snapshot = Snapshot(tensors)
    for x in tensors:
        x.fill_(torch.nan if x.is_floating_point() else 7)
    after = [x.clone() for x in tensors]
    snapshot.restore(None if good is None else torch.tensor(good))
    expected = after if good else before
    for x, e in zip(tensors, expected, strict=True):
        torch.testing.assert_close(x, e, rtol=0, atol=0, equal_nan=True)


def test_nothing_to_keep_is_kept():
    snapshot = Snapshot([])
    snapshot.save()
    snapshot.restore(torch.tensor(0.0))
    assert not snapshot.values
