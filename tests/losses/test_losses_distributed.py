"""Every loss on two gloo ranks with uneven, different shards against one process with the whole batch.

One fork for all of them. What is promised is that of the parameters' gradients after DDP's averaging.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from loss_cases import CASES, ORACLES, call, case_name, size_of, tensors
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from frossl.core.types import Loss, UserError
from frossl.losses import frossl
from oracles import Oracle
from rank_programs import finish, start_ranks

SHARDS = (5, 8)
STARTS = (0, 5, 13)
WIDTHS = {"D<N": 4, "N<D": 20}
RUNS = [(width, *case) for width in WIDTHS for case in CASES]

runs = pytest.mark.parametrize("run", RUNS, ids=[f"{width}-{case_name((name, o))}" for width, name, o in RUNS])


def whole(run: tuple[str, str, dict[str, Any]]) -> tuple[Oracle, dict[str, Any]]:
    """Arguments of the global batch; embeddings have another mean and scale on every rank."""
    width, name, options = run
    oracle = ORACLES[name]
    arguments = oracle.arguments(0, 3, sum(SHARDS), WIDTHS[width], **options)
    rank_of = np.repeat(np.arange(len(SHARDS)), SHARDS)
    for key in oracle.embeddings:
        arguments[key] = arguments[key] * (1 + 2 * rank_of)[:, None] + (rank_of - 0.3)[:, None]
    return oracle, tensors(oracle, arguments)


def shard(oracle: Oracle, inputs: dict[str, Any], rank: int) -> dict[str, Any]:
    return inputs | {key: inputs[key].narrow(axis, STARTS[rank], SHARDS[rank]) for key, axis in oracle.sharded.items()}


def result(oracle: Oracle, inputs: dict[str, Any], parallel: bool = False) -> dict[str, Any]:
    """Value, state and gradients: of the parameters of a linear layer before the loss, and of all embeddings."""
    first = oracle.embeddings[0]
    width = inputs[first].shape[-1]
    torch.manual_seed(1)
    model: nn.Module = nn.Linear(width, width, dtype=torch.float64)
    model = DistributedDataParallel(model) if parallel else model
    projected = model(inputs[first].flatten(0, 1)).unflatten(0, inputs[first].shape[:2])
    loss = call(oracle, inputs | {first: projected})
    loss.total.backward()
    leaves = {key: inputs[key].clone().requires_grad_() for key in oracle.differentiable}
    embedded = call(oracle, inputs | leaves).total
    gradients = torch.autograd.grad(embedded, list(leaves.values()))
    return {
        "values": {"total": loss.total.detach(), **loss.terms},
        "state": dict(loss.state),
        "parameters": [p.grad for p in model.parameters()],
        "embeddings": dict(zip(leaves, gradients, strict=True)),
    }


def worker(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo")
    results = []
    for run in RUNS:
        oracle, inputs = whole(run)
        results.append(result(oracle, shard(oracle, inputs, rank), parallel=True))
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
    torch.save({"runs": results, "errors": errors, "differs": differs.total}, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    finish(start_ranks(lambda rank: worker(rank, folder), folder / "said", len(SHARDS)), folder / "said")
    return [torch.load(folder / f"{rank}.pt") for rank in range(len(SHARDS))]


@pytest.fixture(scope="module")
def alone() -> list[dict[str, Any]]:
    return [result(*whole(run)) for run in RUNS]


def assert_close(got: Tensor, wanted: Tensor) -> None:
    """To 1e-10 of the largest entry: what is zero but for rounding need not round alike."""
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10 * max(1e-3, float(wanted.abs().max())))


@runs
def test_value_and_state_on_every_rank_are_those_of_the_whole_batch(ranks, alone, run):
    wanted = alone[RUNS.index(run)]
    for rank in ranks:
        got = rank["runs"][RUNS.index(run)]
        for key in ("values", "state"):
            assert set(got[key]) == set(wanted[key])
            for name, value in wanted[key].items():
                assert_close(got[key][name], value)


@runs
def test_parameter_gradients_through_ddp_are_those_of_one_process(ranks, alone, run):
    wanted = alone[RUNS.index(run)]["parameters"]
    for rank in ranks:
        for got, gradient in zip(rank["runs"][RUNS.index(run)]["parameters"], wanted, strict=True):
            assert_close(got, gradient)


@runs
def test_gradient_of_embeddings_is_that_of_the_whole_batch_times_the_number_of_ranks(ranks, alone, run):
    for key, wanted in alone[RUNS.index(run)]["embeddings"].items():
        got = torch.cat([rank["runs"][RUNS.index(run)]["embeddings"][key] for rank in ranks], 1)
        assert_close(got / len(SHARDS), wanted)


@runs
def test_ranks_that_knew_only_their_shard_would_fail_these_tests(run):
    """The shards are different enough: the mean of their losses is not the loss of the whole batch."""
    oracle, inputs = whole(run)
    if "permutations" in inputs:  # which are of the whole batch
        inputs |= {"permutations": None, "size": None}
    loss: Loss = call(oracle, inputs)
    parts = [float(call(oracle, shard(oracle, inputs, rank)).total) for rank in range(len(SHARDS))]
    assert abs(float(loss.total) - sum(parts) / len(parts)) > 1e-4 * size_of(loss.terms)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("all zero", "every column"),
        ("constant over both ranks", "zero or constant"),
        ("gaussian", "on one rank"),
    ],
)
def test_errors_are_raised_on_every_rank(ranks, what, says):
    assert all(says in rank["errors"][what] for rank in ranks)


def test_a_batch_constant_on_each_rank_but_not_over_all_is_no_error(ranks):
    for rank in ranks:
        assert float(rank["differs"]) == pytest.approx(0, abs=1e-5)  # rank one, shared: loss 0
