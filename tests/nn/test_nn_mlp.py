from __future__ import annotations

import pytest
import torch
from torch import nn

from frossl.core.types import UserError
from frossl.nn.mlp import mlp, output_width

L, B, R, G = nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.GELU


@pytest.mark.parametrize(
    ("spec", "types", "widths", "biases"),
    [
        ("", [], [], []),
        ("4", [L], [(8, 4)], [True]),
        ("64-bn-relu-64-bn-relu-32", [L, B, R, L, B, R, L], [(8, 64), (64, 64), (64, 32)], [False, False, True]),
        ("16-relu-4", [L, R, L], [(8, 16), (16, 4)], [True, True]),
        ("16-relu-bn-4-bn", [L, R, B, L, B], [(8, 16), (16, 4)], [True, False]),
        ("bn-4", [B, L], [(8, 4)], [True]),
        ("relu", [R], [], []),
        ("16-gelu-4", [L, G, L], [(8, 16), (16, 4)], [True, True]),
        ("16-bn-relu-4-standardise", [L, B, R, L, B], [(8, 16), (16, 4)], [False, False]),
    ],
)  # fmt: skip
def test_layers_are_what_the_string_says(spec, types, widths, biases):
    layers = mlp(8, spec)
    linear = [m for m in layers if isinstance(m, nn.Linear)]
    assert [type(m) for m in layers] == types
    assert [(m.in_features, m.out_features) for m in linear] == widths
    assert [m.bias is not None for m in linear] == biases
    assert output_width(8, spec) == mlp(8, spec)(torch.randn(6, 8)).shape[1]


def test_the_empty_string_is_the_identity():
    x = torch.randn(6, 8)
    assert torch.equal(mlp(8, "")(x), x)


def test_a_batch_norm_after_something_else_norms_the_current_width():
    norms = [m for m in mlp(8, "bn-16-relu-bn-4-bn") if isinstance(m, nn.BatchNorm1d)]
    assert [m.num_features for m in norms] == [8, 16, 4]


def test_standardise_is_a_batch_norm_without_scale_and_shift():
    assert [m.affine for m in mlp(8, "16-bn-relu-4-standardise") if isinstance(m, nn.BatchNorm1d)] == [True, False]
    x = mlp(8, "standardise")(3 + 5 * torch.randn(64, 8))
    torch.testing.assert_close(x.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.var(0, unbiased=False), torch.ones(8), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("16-silu-4", "'silu'"),
        ("16-0", "'0'"),
        ("-16", "''"),
        ("16-", "''"),
        ("16--4", "''"),
        ("16 -4", "'16 '"),
        ("16.5", "'16.5'"),
        ("BN", "'BN'"),
        ("²", "'²'"),
    ],
)
def test_a_part_that_means_nothing_is_named(spec, part):
    with pytest.raises(UserError) as caught:
        mlp(8, spec)
    assert f"{part} is neither" in str(caught.value)
    assert all(name in str(caught.value) for name in ("bn", "relu", "gelu", "standardise"))
    assert repr(spec) in str(caught.value)
