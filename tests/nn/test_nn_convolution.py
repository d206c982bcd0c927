"""Convolutions of maps that are narrower than the stride run in float32 on the CPU; all others are left alone."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from frossl.nn.convolution import narrow_in_float32

CPU = torch.device("cpu")
LAYERS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def rounded(x: Tensor) -> Tensor:
    return x.detach().bfloat16().float()


def made(kernel, size, memory_format=torch.contiguous_format, **options) -> tuple[nn.Module, Tensor]:
    """A layer and images, in numbers that bf16 can hold."""
    torch.manual_seed(0)
    conv = LAYERS[len(size)](8, 32, kernel, **options).to(memory_format=memory_format)
    for p in conv.parameters():
        p.data = rounded(p)
    return conv, rounded(torch.randn(4, 8, *size)).contiguous(memory_format=memory_format)


def differentiated(conv: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and gradients, the gradient of the output being made of small integers."""
    x = x.detach().requires_grad_()
    y = conv(x)
    g = torch.arange(y.numel()).remainder(7).sub(3).view_as(y).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, [x, *conv.parameters()], g)]


def in_bf16(conv: nn.Module, x: Tensor, on: bool = True, autocast: bool = True) -> list[Tensor]:
    with narrow_in_float32(conv, CPU, on), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return differentiated(conv, x)


def same(got: list[Tensor], wanted: list[Tensor]) -> bool:
    return all(torch.equal(a.bfloat16(), b.bfloat16()) for a, b in zip(got, wanted, strict=True))


@pytest.mark.usefixtures("fresh_memory_is_nan")
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size", "groups"),
    [
        *((k, s, k // 2, (h, 1), 1) for k, s, h in itertools.product((2, 3, 5, 7), (2, 3), (1, 2, 8))),
        (3, 3, 1, (2, 2), 1),
        (3, (1, 2), 1, (2, 1), 8),
        ((2, 1), 2, (1, 0), (1, 1), 1),
    ],
)
def test_maps_narrower_than_the_stride_have_output_and_gradients_of_float32(
    kernel, stride, padding, size, groups, memory_format
):
    conv, x = made(kernel, size, FORMATS[memory_format], stride=stride, padding=padding, groups=groups)
    wanted, got, again = differentiated(conv, x), in_bf16(conv, x), in_bf16(conv, x)
    assert got[0].dtype == torch.bfloat16
    assert same(got, wanted)
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
    assert same(in_bf16(copy.deepcopy(conv).bfloat16(), x.bfloat16(), autocast=False), wanted)


@pytest.mark.usefixtures("fresh_memory_is_nan")
@pytest.mark.parametrize("size", [(1,), (2, 2, 1)])
def test_so_have_lines_and_volumes(size):
    conv, x = made(3, size, stride=2, padding=1)
    assert same(in_bf16(conv, x), differentiated(conv, x))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    ("kernel", "stride", "size"), [(3, 1, (1, 1)), (1, 1, (1, 1)), (3, 2, (2, 2)), (1, 2, (4, 4)), (3, 2, (1, 2))]
)
def test_others_are_left_alone(kernel, stride, size, memory_format):
    conv, x = made(kernel, size, FORMATS[memory_format], stride=stride, padding=kernel // 2)
    for a, b in zip(in_bf16(conv, x), in_bf16(conv, x, on=False), strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_without_bf16_types_stay():
    conv, x = made(3, (1, 1), stride=2, padding=1)
    wide = in_bf16(conv.double(), x.double(), autocast=False)
    assert all(a.dtype == torch.float64 for a in wide)


@pytest.mark.usefixtures("fresh_memory_is_nan")
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_layers_of_users_that_are_called_again_backward(use_reentrant):
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv2d(x, self.weight - self.weight.mean(), self.bias, self.stride, self.padding)

    class Recomputed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = Standardised(8, 32, 3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(lambda x: self.conv(x=x), x, use_reentrant=use_reentrant)

    network, x = Recomputed(), made(3, (1, 1), padding=1)[1].requires_grad_()
    with narrow_in_float32(network, CPU, True):
        with torch.autocast("cpu", torch.bfloat16):
            y = network(x)
        y.float().square().sum().backward()
    wanted = network.conv(x)
    assert torch.equal(y, wanted.bfloat16())
    assert network.conv.weight.grad is not None
    (gradient,) = torch.autograd.grad(wanted.square().sum(), network.conv.weight)
    torch.testing.assert_close(network.conv.weight.grad, gradient, rtol=2e-2, atol=2e-2)


def test_nothing_stays_at_the_layers():
    conv, x = made(3, (1, 1), stride=2, padding=1)
    in_bf16(conv, x)
    assert not conv._forward_hooks
    with narrow_in_float32(conv, torch.device("cuda"), True):
        assert not conv._forward_hooks
