"""Two gloo ranks with uneven, different shards against one process with the whole batch."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from frossl.core.types import UserError
from frossl.losses import frossl

SHARDS = (5, 8)
WIDTHS = {"D<N": 4, "N<D": 20}
OPTIONS: list[dict[str, Any]] = [
    {"centre": centre, "normalise": normalise, "log": log, "view_scaling": "mean", "invariance_weight": 1.3}
    for centre, normalise, log in itertools.product((False, True), ("batch", "sample"), (True, False))
]
CASES = [(name, options) for name in WIDTHS for options in OPTIONS]


def shards(width: int) -> list[Tensor]:
    """Three views in shards of uneven length, mean and scale."""
    generator = torch.Generator().manual_seed(width)
    return [
        torch.randn(3, n, width, generator=generator, dtype=torch.float64) * (1 + 2 * rank) + rank - 0.3
        for rank, n in enumerate(SHARDS)
    ]


def linear(width: int) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(width, width, dtype=torch.float64)


def worker(rank: int, init: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=len(SHARDS))
    results = []
    for name, options in CASES:
        width = WIDTHS[name]
        z = shards(width)[rank].requires_grad_()
        loss = frossl(z, **options)
        loss.total.backward()
        model = DistributedDataParallel(linear(width))
        projected = model(z.detach().flatten(0, 1)).unflatten(0, z.shape[:2])
        frossl(projected, **options).total.backward()
        results.append(
            {
                "total": loss.total.detach(),
                **loss.terms,
                "gradient": z.grad,
                "parameters": [p.grad for p in model.parameters()],
            }
        )
    errors = {}
    for what, z, options in (
        ("all zero", torch.zeros(2, SHARDS[rank], 3), {}),
        ("constant over both ranks", torch.full((2, SHARDS[rank], 3), 0.1), {}),
        ("gaussian", torch.ones(2, 5, 3), {"kernel": "gaussian"}),
    ):
        try:
            frossl(z, **options)
        except UserError as error:
            errors[what] = str(error)
    # Constant on each rank but not over both: information that only the global mean can see.
    differs = frossl(torch.full((2, SHARDS[rank], 3), float(rank)), centre=True)
    torch.save({"cases": results, "errors": errors, "differs": differs.total}, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(worker, (f"file://{folder}/init", str(folder)), nprocs=len(SHARDS))
    return [torch.load(folder / f"{rank}.pt") for rank in range(len(SHARDS))]


def names(case: tuple[str, dict[str, Any]]) -> str:
    name, o = case
    return f"{name}-{'centred' if o['centre'] else 'uncentred'}-{o['normalise']}-{'log' if o['log'] else 'nolog'}"


cases = pytest.mark.parametrize("case", CASES, ids=names)


@cases
def test_value_on_every_rank_is_that_of_the_whole_batch(ranks, case):
    name, options = case
    loss = frossl(torch.cat(shards(WIDTHS[name]), 1), **options)
    for rank in ranks:
        got = rank["cases"][CASES.index(case)]
        for key, wanted in {"total": loss.total, **loss.terms}.items():
            torch.testing.assert_close(got[key], wanted, rtol=1e-10, atol=1e-12)


@cases
def test_gradient_after_averaging_over_ranks_is_that_of_the_whole_batch(ranks, case):
    name, options = case
    z = torch.cat(shards(WIDTHS[name]), 1).requires_grad_()
    frossl(z, **options).total.backward()
    got = torch.cat([rank["cases"][CASES.index(case)]["gradient"] for rank in ranks], 1) / len(SHARDS)
    torch.testing.assert_close(got, z.grad, rtol=1e-10, atol=1e-12)


@cases
def test_parameter_gradients_through_ddp_are_those_of_one_process(ranks, case):
    name, options = case
    model = linear(WIDTHS[name])
    frossl(model(torch.cat(shards(WIDTHS[name]), 1)), **options).total.backward()
    for rank in ranks:
        for got, p in zip(rank["cases"][CASES.index(case)]["parameters"], model.parameters(), strict=True):
            torch.testing.assert_close(got, p.grad, rtol=1e-9, atol=1e-12)


def test_statistics_of_one_rank_alone_would_fail_these_tests():
    """The shards are different enough: the mean of per-rank losses is not the loss of the whole batch."""
    for name, options in CASES:
        parts = shards(WIDTHS[name])
        whole = float(frossl(torch.cat(parts, 1), **options).total)
        assert abs(whole - sum(float(frossl(p, **options).total) for p in parts) / 2) > 1e-3 * abs(whole)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("all zero", "every column of a view is zero"),
        ("constant over both ranks", "zero or constant"),
        ("gaussian", "needs all samples on one rank"),
    ],
)
def test_errors_are_raised_on_every_rank(ranks, what, says):
    assert all(says in rank["errors"][what] for rank in ranks)


def test_a_batch_constant_on_each_rank_but_not_over_all_is_no_error(ranks):
    for rank in ranks:
        assert float(rank["differs"]) == pytest.approx(0, abs=1e-5)  # rank one, shared: loss 0
