"""How far a figure may be off because the held-out images are a sample."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

Z = 1.959964
"""Standard errors on each side of a 95 % interval."""
GROUPS = 10
"""Parts of the images that the jackknife leaves out in turn."""


def mean_interval(values_N: Tensor) -> tuple[float, float]:
    """95 % interval ``(low, high)`` of the mean of one value per held-out image.

    Of right and wrong answers it is Wilson's (JASA 1927), which leaves doubt where few are all right; of other values
    that of Student's t. This is the error of the sample of images: that of another training seed is not in it.
    """
    from scipy.stats import binomtest  # takes half a second to import

    n, values = len(values_N), values_N.double()
    if values_N.dtype == torch.bool:
        ends = binomtest(int(values.sum()), n).proportion_ci(0.95, method="wilson")
        return float(ends.low), float(ends.high)
    mean, margin = values.mean().item(), 0.0
    if n > 1:
        margin = float(stdtrit(n - 1, 0.975)) * values.std().item() / n**0.5
    return mean - margin, mean + margin


_answers: ContextVar[dict[str, Tensor] | None] = ContextVar("answers", default=None)


@contextmanager
def collect_answers() -> Iterator[dict[str, Tensor]]:
    """Right and wrong answers ``(N,)`` to the held-out images, by the accuracy that is measured meanwhile."""
    found: dict[str, Tensor] = {}
    token = _answers.set(found)
    try:
        yield found
    finally:
        _answers.reset(token)


def pack_answers(right_N: Tensor) -> str:
    """Right and wrong answers as text, a bit each."""
    return b64encode(np.packbits(right_N.cpu().numpy()).tobytes()).decode()


def unpack_answers(text: str, count: int) -> np.ndarray:
    """The ``count`` answers that :func:`pack_answers` made a text of.

    >>> unpack_answers(pack_answers(torch.tensor([True, False, True])), 3)
    array([ True, False,  True])
    """
    return np.unpackbits(np.frombuffer(b64decode(text), dtype=np.uint8), count=count).astype(bool)


def with_interval(name: str, values_N: Tensor) -> dict[str, float]:
    """The mean as ``name`` and the ends of its :func:`mean_interval` as ``name_low`` and ``name_high``."""
    collected = _answers.get()
    if collected is not None and values_N.dtype == torch.bool:
        collected[name] = values_N
    low, high = mean_interval(values_N)
    return {name: values_N.double().mean().item(), f"{name}_low": low, f"{name}_high": high}


def random_groups(n: int, groups: int = GROUPS) -> list[Tensor]:
    """Indices of ``n`` images in disjoint random groups of about one size, at most ``n`` of them; always the same."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    return list(order.tensor_split(min(groups, n)))


def with_jackknife(whole: dict[str, float], without: Sequence[dict[str, float]]) -> dict[str, float]:
    """Each value of ``whole`` with the ends of its 95 % interval, from the values ``without`` each group of images.

    The delete-a-group jackknife, for figures that are no means, such as ranks: the variance is (g - 1) / g times the
    sum of squares about their mean of the g values, and the interval that of Student's t with g - 1 degrees of freedom.
    With a single group, or where a group leaves a figure undefined, there is no interval.
    """
    groups, values = len(without), dict(whole)
    for name, value in whole.items():
        if groups < 2 or not all(name in one for one in without):
            continue
        left = torch.tensor([one[name] for one in without], dtype=torch.float64)
        error = ((groups - 1) / groups * (left - left.mean()).square().sum()).sqrt().item()
        margin = float(stdtrit(groups - 1, 0.975)) * error
        values |= {f"{name}_low": value - margin, f"{name}_high": value + margin}
    return values


def jackknife(statistic: Callable[[Tensor], dict[str, float]], n: int) -> dict[str, float]:
    """The values of ``statistic`` of the indices of all ``n`` images, :func:`with_jackknife`."""
    groups = random_groups(n)
    without = [statistic(torch.cat(groups[:i] + groups[i + 1 :]).sort().values) for i in range(len(groups)) if n > 1]
    return with_jackknife(statistic(torch.arange(n)), without)
