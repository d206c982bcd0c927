"""Colour jitter, each sample in its own order of operations, and grayscale: eager, masked, or compiled into one kernel.

All give torchvision's values; between them rounding differs, by at most 1e-5 of full scale. Eager is for the CPU,
masked for accelerators, whose kernels do not depend on what was drawn; what is compiled is the masked one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from threading import Lock
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from frossl.core.machine import has_compiler
from frossl.core.types import UserError
from frossl.views import ops
from frossl.views.params import ORDERS, ViewParams

Colour = Callable[[Tensor, ViewParams], None]
"""Changes float ``(B, C, H, W)`` in [0, 1] in place, by the parameters of these B samples."""

Masked = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]
"""The same of :func:`blends` ``(B, 6, 3)``, shift of the hue, and which samples are jittered and made grey."""

CHANGES = (ops.adjust_brightness, ops.adjust_contrast, ops.adjust_saturation, ops.adjust_hue)
CONTRAST, SATURATION, HUE = 1, 2, 3
_CPU = torch.device("cpu")
PIECE_BYTES = 2**19
"""The compiled kernel takes pieces of one size, which stay in the cache and need one compilation."""


def jitter(x_BCHW: Tensor, params: ViewParams) -> None:
    """Eager: at each of the four steps, every operation runs on just the samples whose turn it is."""
    kinds = torch.tensor(ORDERS)[params.order]
    coloured = x_BCHW.shape[1] == 3
    for step in range(4):
        for kind, change in enumerate(CHANGES if coloured else CHANGES[:SATURATION]):
            chosen = (params.jitter & (kinds[:, step] == kind)).nonzero()[:, 0]
            if len(chosen):
                x_BCHW[chosen] = change(x_BCHW[chosen], params.factors[chosen, kind])
    chosen = params.grayscale.nonzero()[:, 0]
    if coloured and len(chosen):
        x_BCHW[chosen] = ops.grayscale(x_BCHW[chosen])


def find_colour(compiled: bool, channels: int) -> Colour:
    """The colour jitter for the CPU: compiled if asked for and images are RGB, else eager.

    Raises:
        UserError: compiled without a C++ compiler.
    """
    if not compiled or channels != 3:
        return jitter
    if not has_compiler():
        raise UserError(
            "--compile-views needs a C++ compiler, and neither $CXX nor g++ (on macOS clang++) is there. Install one "
            "(for instance: apt-get install g++), or leave the flag out"
        )
    return compiled_jitter


def compiled_jitter(x_B3HW: Tensor, params: ViewParams) -> None:
    """Every sample goes through three blends, the hue and three blends; operations it did not draw are identities."""
    parameters = (blends(params, 3), params.factors[:, HUE].contiguous(), params.jitter, params.grayscale)
    piece = max(1, PIECE_BYTES // x_B3HW[0].nbytes)
    with torch.no_grad():
        for start in range(0, len(x_B3HW), piece):
            part = x_B3HW[start : start + piece]
            rows = torch.arange(start, start + piece).clamp_max(len(x_B3HW) - 1)
            whole = part if len(part) == piece else x_B3HW[rows]
            _kernel(whole.shape)(whole, *(p[rows] for p in parameters))
            if whole is not part:
                part.copy_(whole[: len(part)])


def masked_in_one_kernel(x_B3HW: Tensor, *parameters: Tensor) -> None:
    """:func:`masked_jitter` by torch.compile, for each size of a block."""
    _kernel(x_B3HW.shape, x_B3HW.device)(x_B3HW, *parameters)


def blends(params: ViewParams, channels: int) -> Tensor:
    """``(B, 6, 3)``: in each of six slots the weights of an image, of its grey and of the mean of its grey."""
    kind_B6 = torch.where(params.jitter[:, None], SLOTS[params.order], -1)
    if channels != 3:  # which have no saturation
        kind_B6 = kind_B6.masked_fill(kind_B6 == SATURATION, -1)
    factor_B6 = torch.where(kind_B6 < 0, 1, params.factors.gather(1, kind_B6.clamp_min(0)))
    return torch.stack([factor_B6, *((1 - factor_B6) * (kind_B6 == kind) for kind in (SATURATION, CONTRAST))], 2)


def _slots() -> Tensor:
    """For each order, the operations before the hue in the first three slots and those after it in the last three."""
    slots = torch.full((len(ORDERS), 6), -1)
    for row, order in enumerate(ORDERS):
        at = order.index(HUE)
        for first, kinds in ((0, order[:at]), (3, order[at + 1 :])):
            slots[row, first : first + len(kinds)] = torch.tensor(kinds)
    return slots


SLOTS = _slots()


_COMPILING = Lock()


def _kernel(shape: torch.Size, device: torch.device = _CPU) -> Callable[..., None]:
    """For pieces of ``shape``; several threads may ask, and one compiles."""
    with _COMPILING:
        return _compiled(shape, device)


@cache
def _compiled(shape: torch.Size, device: torch.device) -> Callable[..., None]:
    """The kernel, from a code object of its own, as torch stops compiling one after some shapes.

    Raises:
        UserError: the compiler failed.
    """
    own = FunctionType(masked_jitter.__code__.replace(), globals())
    wrapper: dict[str, Any] = {"cpp_wrapper": True} if device.type == "cpu" else {}  # lets other threads run
    kernel = torch.compile(own, dynamic=False, fullgraph=True, options=wrapper)
    one = torch.zeros(shape[0], device=device)
    try:
        kernel(one.new_zeros(shape), one.new_zeros(shape[0], 6, 3), one, one.bool(), one.bool())
    except Exception as error:  # of the compiler, of its headers, of torch's search for them
        reason = str(error).strip().partition("\n")[0]
        what = "C++ compiler" if device.type == "cpu" else "compiler for this device"
        raise UserError(f"--compile-views: the {what} failed ({reason}). Leave the flag out") from error
    return kernel


Planes = Sequence[Tensor]


def masked_jitter(x: Tensor, blends: Tensor, shift: Tensor, jittered: Tensor, grayscale: Tensor) -> None:
    """As :data:`Masked`; of images without three channels brightness and contrast alone.

    Written plane by plane, so that a compiler makes few passes over each sample.
    """
    rgb: Planes = x.flatten(2).unbind(1)
    for slot in range(3):
        rgb = _blend(rgb, blends[:, slot, :, None])
    if len(rgb) == 3:
        turned = _turn(rgb, shift[:, None])
        rgb = [torch.where(jittered[:, None], new, old) for new, old in zip(turned, rgb, strict=True)]
    for slot in range(3, 6):
        rgb = _blend(rgb, blends[:, slot, :, None])
    if len(rgb) == 3:
        grey = _grey(rgb)
        rgb = [torch.where(grayscale[:, None], grey, plane) for plane in rgb]
    x.copy_(torch.stack(list(rgb), 1).view(x.shape))


def _grey(planes: Planes) -> Tensor:
    if len(planes) != 3:
        return torch.stack(list(planes)).mean(0)
    first, second, third = ops.GREY_WEIGHTS
    red, green, blue = planes
    return (first * red).add(green, alpha=second).add(blue, alpha=third)


def _blend(rgb: Planes, weights: Tensor) -> Planes:
    """Brightness, saturation and contrast in one: a share of the image, of its grey and of the mean of its grey."""
    own, of_grey, of_mean = weights.unbind(1)
    grey = _grey(rgb)
    other = torch.addcmul(of_mean * grey.mean(1, keepdim=True), of_grey, grey)
    return [torch.addcmul(other, own, plane).clamp(0, 1) for plane in rgb]


def _turn(rgb: Planes, shift: Tensor) -> Planes:
    """As :func:`frossl.views.ops.adjust_hue`."""
    red, green, blue = rgb
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    first, second = value == red, value == green
    hue6 = torch.where(first, green - blue, torch.where(second, blue - red, red - green)) / chroma.clamp_min(ops.TINY)
    hue6 = hue6 + torch.where(first, 0.0, torch.where(second, 2.0, 4.0)) + 6 * shift
    planes = []
    for complement in ops.COMPLEMENTS:
        away = hue6 - complement
        near = (2 - away.sub(torch.round(away / 6), alpha=6).abs()).clamp(0, 1)
        planes.append(torch.addcmul(value, chroma, near, value=-1))
    return planes
