from __future__ import annotations

import pytest
import torch

from frossl.core.linalg import centre_columns, inverse_norm, product_with_itself

DTYPES = [torch.float32, torch.float64]


def sample(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dim", [1, 2])
def test_inverse_norm_gives_unit_vectors_and_their_scale(dim):
    z = sample(3, 7, 5)
    zh, r = inverse_norm(z, dim)
    torch.testing.assert_close(zh, z / z.norm(dim=dim, keepdim=True))
    torch.testing.assert_close(r, 1 / z.norm(dim=dim, keepdim=True))


@pytest.mark.parametrize("dim", [1, 2])
def test_inverse_norm_leaves_its_input_alone(dim):
    z = sample(3, 7, 5)
    before = z.clone()
    inverse_norm(z, dim)
    assert torch.equal(z, before)


@pytest.mark.parametrize("dim", [1, 2])
def test_zero_vectors_stay_zero_with_scale_zero(dim):
    z = sample(2, 4, 3)
    z.select(3 - dim, 1).zero_()
    zh, r = inverse_norm(z, dim)
    assert (zh.select(3 - dim, 1) == 0).all()
    assert (r.select(3 - dim, 1) == 0).all()
    assert (r.select(3 - dim, 0) > 0).all()


def test_columns_under_the_floor_count_as_zero_and_rows_do_not_know_it():
    z = sample(1, 4, 2)
    floor = torch.tensor([[[float((z[0, :, 0] ** 2).sum()) * 2, 0.0]]], dtype=torch.float64)
    assert inverse_norm(z, 1, floor)[1][0, 0].gt(0).tolist() == [False, True]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 3, 7, 100, 1000])
@pytest.mark.parametrize("constant", [0.1, -1.0, 1000.3, 3.3e4])
def test_a_constant_column_falls_under_the_floor_and_a_varied_one_does_not(dtype, n, constant):
    z = torch.stack([torch.full((n,), constant), constant + torch.linspace(-1, 1, n)], -1).to(dtype)[None]
    centred, floor = centre_columns(z, n)
    square = centred.square().sum(1, keepdim=True)
    assert (square > floor)[0, 0].tolist() == [False, True]


@pytest.mark.parametrize("dtype", DTYPES)
def test_centred_columns_have_mean_zero(dtype):
    centred, _ = centre_columns(sample(3, 9, 4).to(dtype) + 5, 9)
    assert centred.mean(1).abs().max() < 16 * torch.finfo(dtype).eps


def test_product_with_itself_is_the_batched_gram_matrix():
    x = sample(3, 4, 6)
    torch.testing.assert_close(product_with_itself(x), torch.einsum("vik,vjk->vij", x, x))


def test_norms_of_long_float32_columns_are_exact_to_rounding():
    """``torch.linalg.vector_norm`` errs by 1.5e-6 here."""
    z = (sample(2, 4096, 256) + 0.5).float()
    exact = 1 / z.double().norm(dim=1, keepdim=True)
    error = (inverse_norm(z, 1)[1].double() / exact - 1).abs().max()
    assert error < 4e-7
