"""Encoder and heads compiled: the same step, under the same names."""

from __future__ import annotations

import pytest
import torch
from test_train_guard import images, made  # noqa: F401  (a fixture)

from frossl.core.types import UserError
from frossl.nn import compiled


def test_a_compiled_step_is_the_step(images, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(compiled, "BACKEND", "eager")  # traced as for any other, without a compiler
    monkeypatch.setattr(compiled, "has_compiler", lambda: True)
    rows, names = [], []
    for compile_ in (False, True):
        take, batches = made(images, tmp_path, "byol", compile=compile_)
        for step in (0, 1):
            row = take(batches[step], step, 0.5, 5.0)
        take.check()
        rows.append({name: float(value) for name, value in row.items()})
        names.append(list(take.learner.state_dict()))
        assert (take.learner.backbone._compiled_call_impl is not None) == compile_
        assert (take.learner.method.head._compiled_call_impl is not None) == compile_
    assert rows[1] == pytest.approx(rows[0], rel=1e-4)
    assert names[0] == names[1]
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("has_compiler", "precision", "message"), [(False, "32", "C\\+\\+ compiler"), (True, "bf16", "--precision 32")]
)
def test_what_cannot_be_compiled_on_the_cpu_is_refused(monkeypatch, has_compiler, precision, message):
    monkeypatch.setattr(compiled, "has_compiler", lambda: has_compiler)
    with pytest.raises(UserError, match=message):
        compiled.compile_networks([], torch.device("cpu"), precision)
