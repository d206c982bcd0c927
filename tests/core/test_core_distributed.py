"""Collectives and batch norms on two gloo ranks, in one launch: what each rank got is compared here."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as td
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from frossl.core import distributed as dist
from frossl.losses import LOSSES, LossModule
from frossl.nn.batch_norm import BatchNormOverRanks
from rank_programs import finish, outlived, start_ranks


def exchange(folder: Path, r: int) -> None:
    td.init_process_group("gloo", timeout=timedelta(seconds=20))
    got = {"rank": dist.rank(), "ranks": dist.world_size(), "count": dist.global_count(3 + r, torch.zeros(1))}
    got["stack"] = dist.all_gather_stacked(torch.full((2, 3), float(r)).T)
    got["largest"] = dist.all_reduce_max(10.0 - r, float(r))
    got["text"] = dist.broadcast_object("Größe\n" if r == 0 else "other")
    got["empty"] = dist.broadcast_object("")
    got["join"] = dist.join(torch.full((2 - r, 1), float(r)), [2, 1])
    got["first"] = dist.run_on_rank_zero(lambda: (time.sleep(1), "done")[1])
    try:
        dist.run_on_rank_zero(lambda: 1 / 0)
    except Exception as error:
        got["error"] = type(error).__name__
    p = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(4)), torch.nn.Parameter(torch.zeros(1))]
    p[0].grad = torch.full((3, 2), float(r)).T
    p[2].grad = torch.full((1,), 10.0 + r)
    dist.average_gradients(p)
    got["gradients"] = [x.grad for x in p]
    start = sum(SHARDS[:r])
    for case in CASES:
        x = batch_of(case)[start : start + SHARDS[r]]
        network = DistributedDataParallel(network_of(case), find_unused_parameters=True)
        got[case] = outcome(network, x, len(SHARDS))
    torch.save(got, folder / f"{r}.pt")
    td.barrier()


SHARDS = (5, 3)
CASES = {
    "flat": (4,),
    "images": (4, 3, 3),
    "half": (4, 3, 3),
    "plain": (4, 2, 2),
}


def batch_of(case: str) -> torch.Tensor:
    """Another mean and scale on every rank."""
    x = torch.randn(sum(SHARDS), *CASES[case], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[SHARDS[0] :] = 3 * x[SHARDS[0] :] + 2
    return x.bfloat16() if case == "half" else x


def network_of(case: str) -> nn.Module:
    torch.manual_seed(0)
    kind = nn.BatchNorm1d if case == "flat" else nn.BatchNorm2d
    norm = kind(4, affine=case != "plain", momentum=0.3)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    first = nn.Linear(4, 4) if case == "flat" else nn.Conv2d(4, 4, 1)
    return nn.Sequential(first, norm).to(torch.bfloat16 if case == "half" else torch.float64)


def outcome(network: nn.Module, x: torch.Tensor, ranks: int) -> dict[str, object]:
    """Output, gradients of a loss of the global batch, running statistics."""
    x = x.clone().requires_grad_()
    with BatchNormOverRanks():
        y = network(x)
        weights = torch.linspace(-1, 1, y[0].numel(), dtype=y.dtype).view(y[0].shape)
        loss = (dist.gather(y).double() * weights).square().sum()
    loss.backward()
    inner = network.module if hasattr(network, "module") else network
    network.eval()
    with BatchNormOverRanks():
        evaluated = network(x.detach())
    return {
        "y": y.detach(),
        "x": x.grad / ranks,
        "parameters": [p.grad for p in inner.parameters()],
        "buffers": list(inner.buffers()),
        "evaluated": evaluated.detach(),
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    finish(start_ranks(lambda r: exchange(folder, r), folder / "said"), folder / "said")
    return [torch.load(folder / f"{r}.pt") for r in range(2)]


def test_ranks_exchange_what_they_have(ranks):
    for r, got in enumerate(ranks):
        assert (got["rank"], got["ranks"], got["count"]) == (r, 2, 7)
        assert torch.equal(got["stack"], torch.tensor([0.0, 1.0])[:, None, None].expand(2, 3, 2))
        assert got["largest"] == (10.0, 1.0)
        assert got["text"] == "Größe\n"
        assert got["join"].flatten().tolist() == [0, 0, 1]
        assert got["empty"] == ""


def test_the_first_rank_works_while_the_others_wait_and_its_errors_end_them(ranks):
    assert [got["first"] for got in ranks] == ["done", None]
    assert [got["error"] for got in ranks] == ["ZeroDivisionError", "RankError"]


def test_gradients_are_averaged_and_absent_ones_stay_absent(ranks):
    for got in ranks:
        a, b, c = got["gradients"]
        assert torch.equal(a, torch.full((2, 3), 0.5))
        assert b is None
        assert torch.equal(c, torch.tensor([10.5]))


@pytest.mark.parametrize("case", CASES)
def test_batch_norm_over_ranks_is_that_of_the_whole_batch(ranks, case):
    wanted = outcome(network_of(case), batch_of(case), 1)
    tolerance = {"rtol": 3e-2, "atol": 3e-2} if case == "half" else {"rtol": 1e-10, "atol": 1e-11}
    for name in ("y", "x", "evaluated"):
        torch.testing.assert_close(torch.cat([got[case][name] for got in ranks]), wanted[name], **tolerance)
    for got in ranks:
        for name in ("parameters", "buffers"):
            for a, b in zip(got[case][name], wanted[name], strict=True):
                if case == "half" and name == "parameters":  # a bias before a batch norm has rounding for a gradient
                    tolerance["atol"] = 3e-2 * max(float(g.abs().max()) for g in wanted[name])
                torch.testing.assert_close(a, b, **tolerance)


def live(end: str, r: int) -> None:
    """Rank 1 is slower than the heartbeat allows to be silent, and then frozen, dead, or at an error of its own."""
    td.init_process_group("gloo")
    dist.BEAT = 0.2
    stall = 3 if end == "SIGSTOP" else 0
    with dist.heartbeat(2.0):
        if r == 1:
            time.sleep(stall)
        assert dist.global_count(1, torch.zeros(1)) == 2
        assert dist.run_with_heartbeat(lambda: (time.sleep(stall if r == 0 else 0), r)[1]) == r
        print("together", flush=True)
        if r == 0:
            dist.sum_over_ranks(torch.ones(1))
            return
        if end == "error":
            raise RuntimeError("of one's own")
        os.kill(os.getpid(), getattr(signal, end))


@pytest.mark.parametrize("end", ["SIGSTOP", "SIGKILL", "error"])
def test_a_slow_rank_is_waited_for_and_one_that_is_frozen_dead_or_failed_ends_the_others(tmp_path, end):
    ranks = start_ranks(lambda r: live(end, r), tmp_path / "said")
    code, said = outlived(ranks, 0, tmp_path / "said", 60)
    assert said.startswith("together\n")
    assert code == dist.LOST if end == "SIGSTOP" else code, said  # else the collective may be the first to notice
    assert ("more than 2 s" in said) == (end == "SIGSTOP")


def stall(r: int) -> None:
    """A live rank that does not come within the time that is given for a step."""
    td.init_process_group("gloo")
    with dist.heartbeat(60.0):
        dist.limit_waits(1.0)
        if r == 1:
            time.sleep(300)
        try:
            dist.sum_over_ranks(torch.ones(1))
        except RuntimeError as error:
            print(dist.lost_rank(error))
            dist.exit_process(7)


def test_a_live_rank_is_not_waited_for_without_end(tmp_path):
    code, said = outlived(start_ranks(stall, tmp_path / "said"), 0, tmp_path / "said", 60)
    assert code == 7, said
    assert "--stall-timeout" in said


def again(r: int) -> None:
    for port in (0, 1):
        os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + port)
        td.init_process_group("gloo")
        with dist.heartbeat(30.0), dist.heartbeat(30.0):
            assert dist.all_reduce_max(float(r)) == (1.0,)
        td.destroy_process_group()


def test_a_second_process_group_in_one_interpreter_works(tmp_path):
    finish(start_ranks(again, tmp_path / "said"), tmp_path / "said")


def plan_and_group(r: int) -> None:
    """Lengths that a plan tells are not asked for; a loss keeps to a group, or to its own rank, backward too."""
    td.init_process_group("gloo")
    groups = [td.new_group([0]), td.new_group([1])]
    z, whole = torch.randn(2, SHARDS[r], 3, generator=torch.Generator().manual_seed(r), dtype=torch.float64), []
    asked: list[torch.dtype] = []
    real = td.all_gather
    td.all_gather = lambda parts, x, **how: (asked.append(x.dtype), real(parts, x, **how))[1]

    def gradient(loss: Callable, **how: object) -> tuple[torch.Tensor, torch.Tensor]:
        x = z.clone().requires_grad_()
        total = loss(x, **how).total
        total.backward()
        return total.detach(), x.grad

    for loss in (LOSSES["frossl"], LOSSES["ntxent"]):
        asked.clear()
        everywhere = gradient(loss)
        assert torch.int64 in asked
        asked.clear()
        with dist.within(dist.Scope(shards=SHARDS)):
            for got, wanted in zip(gradient(loss), everywhere, strict=True):
                assert torch.equal(got, wanted)
        assert torch.int64 not in asked
        own = gradient(loss, group="local")
        for got, wanted in zip(gradient(loss, group=groups[r]), own, strict=True):
            torch.testing.assert_close(got, wanted)
        assert not torch.allclose(own[0], everywhere[0])
        whole.append(own)
    assert torch.equal(LossModule("frossl", group="local")(z), whole[0][0])
    with dist.within(dist.Scope("local")):
        assert (dist.world_size(), dist.rank()) == (1, 0)
    torch.save([z, whole], f"{os.environ['SAID']}.{r}.pt")


def test_a_loss_keeps_to_its_group_and_takes_lengths_from_a_plan(tmp_path, monkeypatch):
    monkeypatch.setenv("SAID", str(tmp_path / "got"))
    finish(start_ranks(plan_and_group, tmp_path / "said"), tmp_path / "said")
    for r in range(2):
        z, found = torch.load(tmp_path / f"got.{r}.pt")
        for loss, (total, grad) in zip((LOSSES["frossl"], LOSSES["ntxent"]), found, strict=True):
            x = z.clone().requires_grad_()
            alone = loss(x).total
            alone.backward()
            torch.testing.assert_close((alone.detach(), x.grad), (total, grad))


def test_in_one_process_the_layer_is_torchs_own():
    x = torch.randn(6, 4)
    network = nn.BatchNorm1d(4)
    with BatchNormOverRanks():
        assert torch.equal(network(x), functional.batch_norm(x, None, None, network.weight, network.bias, True))


def test_alone_everything_is_the_identity():
    x = torch.randn(3)
    assert dist.gather(x) is x
    assert dist.sum_over_ranks(x) is x
    assert dist.all_reduce_max(1.0, 2.0) == (1.0, 2.0)
    assert dist.broadcast_object("a") == "a"
    assert dist.run_on_rank_zero(lambda: 3) == 3
    assert dist.run_with_heartbeat(lambda: 4) == 4
    assert torch.equal(dist.all_gather_stacked(x), x[None])
