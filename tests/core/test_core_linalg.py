from __future__ import annotations

import pytest
import torch

from frossl.core.linalg import (
    CACHE,
    NumericalError,
    block_width,
    centre_columns,
    covariance_spectrum,
    decompose,
    inverse_root,
    or_nothing,
    product_with_itself,
    square_norm,
)

DTYPES = [torch.float32, torch.float64]


def sample(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_inverse_root_is_one_over_the_root_and_zero_where_nothing_is_left():
    square = torch.tensor([4.0, 0.0, 1e-3, torch.finfo(torch.float64).tiny / 2], dtype=torch.float64)
    assert inverse_root(square).tolist() == pytest.approx([0.5, 0.0, 1e-3**-0.5, 0.0])
    assert inverse_root(square, torch.full((4,), 1e-2, dtype=torch.float64)).tolist() == [0.5, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 3, 7, 100, 1000])
@pytest.mark.parametrize("constant", [0.1, -1.0, 1000.3, 3.3e4])
def test_a_constant_column_falls_under_the_floor_and_a_varied_one_does_not(dtype, n, constant):
    z = torch.stack([torch.full((n,), constant), constant + torch.linspace(-1, 1, n)], -1).to(dtype)[None]
    centred, floor = centre_columns(z, n, keep_noise=True)
    square = centred.square().sum(1, keepdim=True)
    assert (square > floor)[0, 0].tolist() == [False, True]
    cleared, _ = centre_columns(z, n, keep_noise=False)
    assert (cleared[..., 0] == 0).all()
    assert torch.equal(cleared[..., 1], centred[..., 1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_centred_columns_have_mean_zero(dtype):
    centred, _ = centre_columns(sample(3, 9, 4).to(dtype) + 5, 9, keep_noise=True)
    assert centred.mean(1).abs().max() < 16 * torch.finfo(dtype).eps


@pytest.mark.parametrize("shape", [(3, 4, 6), (2, 513, 7), (1, 600, 40)])
def test_product_with_itself_is_the_batched_gram_matrix(shape):
    x = sample(*shape)
    product = product_with_itself(x)
    torch.testing.assert_close(product, torch.einsum("vik,vjk->vij", x, x))


@pytest.mark.parametrize("shape", [(2, 3, 5), (4, 700, 3000)])
def test_blocks_are_whole_for_small_tensors_and_fit_the_cache_for_large_ones(shape):
    width = block_width(torch.empty(shape))
    assert width == shape[2] if shape == (2, 3, 5) else 4 * 700 * width * 4 <= CACHE


def test_square_norm_of_large_float32_matrices_is_exact_to_rounding():
    """``torch.linalg.vector_norm`` errs by ten times as much along long axes."""
    x = (sample(2, 1500, 1500) + 0.5).float()
    exact = x.double().square().sum(dim=(1, 2))
    assert (square_norm(x).double() / exact - 1).abs().max() < 4e-7


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("shape", [(12, 4), (4, 12)])
def test_a_spectrum_of_numbers_that_are_not_finite_is_a_named_error(shape, bad):
    x = sample(*shape)
    x[1, 2] = bad
    with pytest.raises(NumericalError, match=r"\(4, 4\) .*are not finite"):
        covariance_spectrum(x)


def test_what_does_not_converge_in_float32_is_decomposed_in_float64():
    x = torch.zeros(400, 1280)
    alive = torch.randperm(1280, generator=torch.Generator().manual_seed(0))[:29]
    x[:, alive] = sample(400, 29).float()  # for which LAPACK's eigh in float32 fails
    values, axes = decompose(torch.linalg.eigh, x.T @ x)
    assert values.dtype == axes.dtype == torch.float32
    torch.testing.assert_close(axes @ values.diag() @ axes.T, x.T @ x, rtol=1e-4, atol=1e-3)


def test_a_decomposition_that_fails_is_a_named_error_and_leaves_figures_out():
    singular = torch.zeros(3, 3)
    with pytest.raises(NumericalError, match="too far apart"):
        decompose(torch.linalg.cholesky, singular)
    measure = or_nothing(lambda x, scale: {"norm": decompose(torch.linalg.cholesky, x).norm().item() * scale})
    assert measure(singular, scale=2.0) == {}
    assert measure(torch.eye(4), scale=2.0) == {"norm": 4.0}
