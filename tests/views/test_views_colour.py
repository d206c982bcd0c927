from __future__ import annotations

import pytest
import torch
from torch import Tensor

from frossl.core.types import UserError
from frossl.views import colour
from frossl.views.params import ORDERS, ViewParams, sample_params
from frossl.views.recipes import View

STRONG = View(count=1, jitter=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5, grayscale=0.2)


def drawn(n: int, view: View = STRONG) -> ViewParams:
    return sample_params((view,), seed=0, epoch=0, index_N=torch.arange(n), height=8, width=8)[0].map(lambda t: t[0])


def photographs(n: int, size: int = 8) -> Tensor:
    """Noise, with a grey, a black, a white and a one-colour image among it."""
    x = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1))
    x[1] = x[1].mean(0, keepdim=True)
    x[2], x[3], x[4] = 0, 1, x[4, :, :1, :1]
    return x


def changed(how: colour.Colour, x: Tensor, d: ViewParams) -> Tensor:
    y = x.clone()
    how(y, d)
    return y


@pytest.fixture
def uncompiled(monkeypatch):
    """The kernel as it is written; a test asks for pieces of a shape that no other does, as kernels are kept."""
    monkeypatch.setattr(torch, "compile", lambda kernel, **_: kernel)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("n", [5, 64, 100])
def test_one_kernel_for_all_gives_what_each_operation_gives_to_its_own(n, monkeypatch):
    """Pieces of 32 samples, so that one is whole, several are, or the last is filled up."""
    monkeypatch.setattr(colour, "PIECE_BYTES", 32 * 3 * 8 * 8 * 4)
    x, d = photographs(n), drawn(n)
    torch.testing.assert_close(changed(colour.compiled_jitter, x, d), changed(colour.jitter, x, d), rtol=0, atol=1e-5)


def test_every_order_is_among_the_samples_of_these_tests():
    d = drawn(600)
    assert len(d.order[d.jitter].unique()) == len(ORDERS)
    x = photographs(600)
    together = changed(colour.jitter, x, d)
    assert 0.1 < float((together == x).all(dim=(1, 2, 3)).float().mean()) < 0.3  # neither jitter nor grayscale drawn


@pytest.mark.usefixtures("uncompiled")
def test_all_orders_in_one_kernel(monkeypatch):
    monkeypatch.setattr(colour, "PIECE_BYTES", 600 * 3 * 8 * 8 * 4)
    x, d = photographs(600), drawn(600)
    torch.testing.assert_close(changed(colour.compiled_jitter, x, d), changed(colour.jitter, x, d), rtol=0, atol=1e-5)


@pytest.mark.skipif(not colour.has_compiler(), reason="needs a C++ compiler")
def test_compiled_colours_are_the_eager_ones_and_the_same_every_time():
    x, d = photographs(40), drawn(40)
    compiled = changed(colour.compiled_jitter, x, d)
    torch.testing.assert_close(compiled, changed(colour.jitter, x, d), rtol=0, atol=1e-5)
    assert torch.equal(compiled, changed(colour.compiled_jitter, x, d))
    few = d.map(lambda t: t[7:20])
    assert torch.equal(changed(colour.compiled_jitter, x[7:20], few), compiled[7:20])


def test_compiling_without_a_compiler_says_what_to_do(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match="C\\+\\+ compiler"):
        colour.find_colour(True, 3)
    assert colour.find_colour(False, 3) is colour.jitter


def test_a_compiler_that_fails_is_named(monkeypatch):
    def failing(*_, **__):
        raise RuntimeError("no such header\nmore")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: failing)
    with pytest.raises(UserError, match=r"--compile-views.*\(no such header\)"):
        colour.compiled_jitter(photographs(5, size=5), drawn(5))


def test_every_size_is_compiled_anew(monkeypatch):
    """torch takes a code object for the same function whatever was made of it, and compiles it eight times at most."""
    made = []
    monkeypatch.setattr(torch, "compile", lambda f, **_: made.append(f) or f)
    for side in (6, 7):
        colour.compiled_jitter(photographs(5, size=side), drawn(5))
    assert made[0].__code__ is not made[1].__code__


def test_only_colour_images_are_compiled():
    assert colour.find_colour(True, 1) is colour.jitter
