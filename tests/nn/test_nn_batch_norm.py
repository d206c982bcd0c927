"""Batch norm over ranks by torch's kernels for CUDA, whose formulas stand in for them here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from frossl.nn import batch_norm

AXES, SHAPE = (0, 2, 3), (1, -1, 1, 1)
SHARDS = (5, 3)


def over(c: Tensor) -> Tensor:
    return c.view(SHAPE)


def stats(x: Tensor, eps: float):
    variance, mean = torch.var_mean(x, AXES, correction=0)
    return mean, (variance + eps).rsqrt()


def gather_stats(x, means, scales, running_mean, running_var, momentum, eps, counts):
    count, weights = counts.sum(), (counts / counts.sum())[:, None]
    mean = (weights * means).sum(0)
    variance = (weights * (scales**-2 - eps + (means - mean) ** 2)).sum(0)
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(variance * count / (count - 1), momentum)
    return mean, (variance + eps).rsqrt()


def normalised(x, weight, bias, mean, scale, eps):
    return (x - over(mean)) * over(scale * weight) + over(bias)


def backward_reduce(g, x, mean, scale, weight, *needs):
    along = (g * (x - over(mean))).sum(AXES)
    return g.sum(AXES), along, along * scale, g.sum(AXES)


def backward_elemt(g, x, mean, scale, weight, total, along, counts):
    n = counts.sum()
    centred = (x - over(mean)) * over(scale**2 * along / n)
    return (g - over(total / n) - centred) * over(scale * weight)


@pytest.fixture
def kernels(monkeypatch):
    for name, formula in {
        "batch_norm_stats": stats,
        "batch_norm_gather_stats_with_counts": gather_stats,
        "batch_norm_elemt": normalised,
        "batch_norm_backward_reduce": backward_reduce,
        "batch_norm_backward_elemt": backward_elemt,
    }.items():
        monkeypatch.setattr(torch, name, formula)


@pytest.mark.usefixtures("kernels")
def test_kernels_over_ranks_give_the_batch_norm_of_the_whole_batch(monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(sum(SHARDS), 4, 3, 3, dtype=torch.float64).requires_grad_()
    g = torch.randn_like(x)
    weight, bias = (torch.randn(4, dtype=torch.float64).requires_grad_() for _ in range(2))
    running = [torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)]
    y = torch.nn.functional.batch_norm(x, running[0], running[1], weight, bias, True, 0.1, 1e-5)
    expected = torch.autograd.grad(y, (x, weight, bias), g)

    parts, gradients = [p.detach().requires_grad_() for p in x.split(SHARDS)], g.split(SHARDS)
    messages: list[Tensor] = []

    def everyone(call):
        """``call(rank)`` on each rank, all of which see what each of them sends."""
        messages.clear()
        monkeypatch.setattr(batch_norm, "all_gather_stacked", lambda m: messages.append(m) or m[None])
        monkeypatch.setattr(batch_norm, "sum_over_ranks", lambda m: messages.append(m) or m)
        for rank in range(2):
            call(rank)
        sent = [m.detach().clone() for m in messages]
        monkeypatch.setattr(batch_norm, "all_gather_stacked", lambda m: torch.stack(sent))
        monkeypatch.setattr(batch_norm, "sum_over_ranks", lambda m: sum(sent))
        return [call(rank) for rank in range(2)]

    def forward(rank):
        means = [torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)]
        return batch_norm._ByKernels.apply(parts[rank], weight, bias, *means, 0.1, 1e-5), means

    made = everyone(forward)
    torch.testing.assert_close(torch.cat([y for y, _ in made]), y)
    for _, means in made:
        torch.testing.assert_close(means, running)

    def backward(rank):
        return torch.autograd.grad(made[rank][0], (parts[rank], weight, bias), gradients[rank], retain_graph=True)

    found = everyone(backward)
    torch.testing.assert_close(torch.cat([f[0] for f in found]), expected[0])
    for i in (1, 2):
        torch.testing.assert_close(found[0][i] + found[1][i], expected[i])
