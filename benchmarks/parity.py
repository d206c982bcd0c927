"""Every loss on several ranks against one process with the whole batch, and three of lightly's beside them.

    python benchmarks/parity.py [--table] > docs/results/parity.md

Gloo ranks with different shards, of uneven length, each behind a linear layer under DistributedDataParallel. Compared
are the loss and the averaged gradient of that layer. In float64 both should agree to rounding. In float32 the figure is
the error against float64, beside that of one process in float32 on the same input: what the arithmetic costs anyway.
Cases come from ``tests/oracles``. Rows go to ``docs/results/data/parity.jsonl``; what is there is not done again.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessException
from torch.nn.parallel import DistributedDataParallel

from common import (
    Row,
    environment,
    heading,
    measured_rows,
    parse_arguments,
    read_or_run,
    table,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "losses"))
from loss_cases import CASES, ORACLES, call, case_name, tensors

VIEWS, IMAGES, WIDTHS = (2, 4), 28, {"N>D": 6, "N<D": 40}
SHARDS = {"uneven": ((11, 17), (5, 9, 6, 8)), "even": ((14, 14), (7, 7, 7, 7))}
PEERS = ("frossl", "barlow_twins", "vicreg")
SAME = ("who", "ranks", "shards")


def problem(name: str, views: int, width: int, options: dict[str, Any], shards: tuple[int, ...]) -> dict[str, Any]:
    """Arguments of the global batch in float64; embeddings have another mean and scale on every rank."""
    oracle = ORACLES[name]
    arguments = oracle.arguments(0, views, sum(shards), width, **options)
    rank_of = np.repeat(np.arange(len(shards)), shards)
    for key in oracle.embeddings:
        arguments[key] = arguments[key] * (1 + rank_of)[:, None] + (0.5 * rank_of)[:, None]
    return arguments


def outcome(objective: Callable[[Tensor], Tensor], z_VND: Tensor, parallel: bool) -> tuple[Tensor, Tensor]:
    """Loss and gradient of the weights of a linear layer before it, in float64."""
    width = z_VND.shape[-1]
    torch.manual_seed(1)
    layer = nn.Linear(width, width, dtype=torch.float64).to(z_VND.dtype)
    model = DistributedDataParallel(layer) if parallel else layer
    total = objective(model(z_VND.flatten(0, 1)).unflatten(0, z_VND.shape[:2]))
    total.backward()
    assert layer.weight.grad is not None
    return total.detach().double(), layer.weight.grad.double()


def ours(name: str, views: int, width: int, options: dict[str, Any], shards: tuple[int, ...], rank: int | None, dtype):
    oracle = ORACLES[name]
    arguments = tensors(oracle, problem(name, views, width, options, shards), dtype)
    if rank is not None:
        at = sum(shards[:rank])
        cut = {key: arguments[key].narrow(axis, at, shards[rank]) for key, axis in oracle.sharded.items()}
        arguments |= cut
    first = oracle.embeddings[0]
    return outcome(lambda z: call(oracle, arguments | {first: z}).total, arguments[first], rank is not None)


def theirs(
    name: str, views: int, width: int, options: dict[str, Any], shards: tuple[int, ...], rank: int | None, dtype
):
    from lightly.loss import BarlowTwinsLoss, FroSSLLoss, VICRegLoss

    z_VND = torch.from_numpy(problem(name, views, width, {}, shards)[ORACLES[name].embeddings[0]]).to(dtype)
    if rank is not None:
        z_VND = z_VND.narrow(1, sum(shards[:rank]), shards[rank])
    gathers = rank is not None
    loss = {
        "frossl": lambda z: FroSSLLoss()(list(z)),
        "barlow_twins": lambda z: BarlowTwinsLoss(gather_distributed=gathers)(z[0], z[1]),
        "vicreg": lambda z: VICRegLoss(gather_distributed=gathers)(z[0], z[1]),
    }[name]
    return outcome(loss, z_VND, rank is not None)


def cases(who: str) -> Iterator[tuple[str, int, str, dict[str, Any]]]:
    for name, options in CASES if who == "frossl" else [(name, {}) for name in PEERS]:
        for views in VIEWS if who == "frossl" or name == "frossl" else (2,):
            for shape in WIDTHS:
                if options.get("kernel") != "gaussian":  # which refuses several ranks
                    yield name, views, shape, options


def worker(rank: int, init: str, folder: str, who: str, shards: tuple[int, ...], only: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    timeout = datetime.timedelta(seconds=300)
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=len(shards), timeout=timeout)
    run = ours if who == "frossl" else theirs
    results = {}
    for name, views, shape, options in (case for case in cases(who) if case[0] in only):
        key = (case_name((name, options)), views, shape)
        for dtype in (torch.float64, torch.float32):
            try:
                results[*key, str(dtype)] = run(name, views, WIDTHS[shape], options, shards, rank, dtype)
            except (RuntimeError, ValueError) as error:
                results[*key, str(dtype)] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def error_of(got: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Relative errors of the loss, and of the gradient by its largest entry."""
    value = float((got[0] - wanted[0]).abs() / wanted[0].abs().clamp_min(1e-3))
    return value, float((got[1] - wanted[1]).abs().max() / wanted[1].abs().max())


def on_ranks(who: str, shards: tuple[int, ...], only: tuple[str, ...]) -> list[dict[Any, Any]] | str:
    """What each rank found of the losses ``only``, or how they ended: shards of uneven length abort some."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            torch.multiprocessing.spawn(
                worker, (f"file://{folder}/init", folder, who, shards, only), nprocs=len(shards)
            )
        except ProcessException as error:
            return f"the processes ended: {str(error).strip().splitlines()[-1]}"
        return [torch.load(Path(folder) / f"{r}.pt") for r in range(len(shards))]


def compare(who: str, shards: tuple[int, ...], threads: int) -> Row:
    """All cases on as many ranks as there are ``shards``."""
    torch.set_num_threads(threads)
    run = ours if who == "frossl" else theirs
    names = tuple(dict.fromkeys(case[0] for case in cases(who)))
    groups = [names] if who == "frossl" else [(name,) for name in names]
    got = {name: found for group in groups for found in [on_ranks(who, shards, group)] for name in group}
    found = []
    for name, views, shape, options in cases(who):
        key = (case_name((name, options)), views, shape)
        wanted, single = (
            run(name, views, WIDTHS[shape], options, shards, None, d) for d in (torch.float64, torch.float32)
        )
        row: Row = {"loss": key[0], "views": views, "shape": shape, "single32": max(error_of(single, wanted))}
        for dtype in (torch.float64, torch.float32):
            of = got[name]
            results = [of] if isinstance(of, str) else [rank[*key, str(dtype)] for rank in of]
            bits = str(dtype)[-2:]
            failed = [r for r in results if isinstance(r, str)]
            if failed:
                row[f"fails{bits}"] = failed[0]
            else:
                errors = [error_of(r, wanted) for r in results]
                row[f"value{bits}"], row[f"gradient{bits}"] = (max(e[i] for e in errors) for i in range(2))
        found.append(row)
    return {"found": found}


def jobs(threads: int) -> Iterator[tuple[Row, Callable[..., Row], tuple[Any, ...]]]:
    about = environment(threads, "lightly")
    for who in ("frossl", "lightly"):
        for kind, of in SHARDS.items():
            for shards in of:
                row = {"who": who, "ranks": len(shards), "shards": kind, "lengths": shards, "environment": about}
                yield row, compare, (who, shards, threads)


def show(rows: list[Row]) -> str:
    rows = measured_rows(rows, SAME)
    about = rows[-1]["environment"]

    def flat(who: str) -> list[tuple[Row, Row]]:
        return [(row, found) for row in rows if row["who"] == who for found in row["found"]]

    mine = flat("frossl")
    worst = max(max(f["value64"], f["gradient64"]) for _, f in mine)
    names = list(dict.fromkeys(f["loss"] for _, f in mine))
    lines = []
    for name in names:
        of = [f for _, f in mine if f["loss"] == name]
        good = sum(within(f) for f in of)
        lines.append(
            [
                f"`{name}`",
                *(
                    f"{max(f[c] for f in of):.1e}"
                    for c in ("value64", "gradient64", "value32", "gradient32", "single32")
                ),
                f"{good} of {len(of)}",
            ]
        )
    others = []
    for row, f in flat("lightly"):
        others.append(
            [
                f"`{f['loss']}`",
                f["views"],
                f["shape"],
                row["ranks"],
                row["shards"],
                cell(f, "value64"),
                cell(f, "gradient64"),
            ]
        )
    lengths = ", ".join(str(tuple(row["lengths"])) for row in rows if row["who"] == "frossl")
    widths = ", ".join(f"{width} ({name})" for name, width in WIDTHS.items())
    note = (
        f"{IMAGES} images in shards of {lengths}; V = {', '.join(map(str, VIEWS))}; D = {widths}. Largest relative "
        "error over views, shapes, ranks and shards: of the loss, and of the gradient of a linear layer before it, "
        f"after DDP's averaging. float64: at most {worst:.1e} in {len(mine)} cases. float32: against float64, beside "
        "the error that one process makes in float32 on the same input; a case is within bounds if its float64 errors "
        "are at most 1e-10 and its float32 errors at most the larger of 1e-5 and 3 times those of one process: "
        f"{sum(within(f) for _, f in mine)} of {len(mine)} are."
    )
    columns = ["loss", *(f"{what}, {bits}" for bits in ("float64", "float32") for what in ("loss", "gradient"))]
    parts = [
        heading("Losses on several ranks against one process", "python benchmarks/parity.py; --table", about, note),
        table([*columns, "one process, float32", "within bounds"], lines),
        "## lightly's losses of the same name\n\nThe same shards and the same yardstick: lightly's own loss of the "
        "whole batch in one process. With `gather_distributed` where there is such an option; its FroSSL has none. The "
        "loss that a rank reports need not be that of the whole batch; the gradient after averaging is what trains. "
        "Its Barlow Twins normalises by the statistics of each rank; its VICReg gathers, which needs shards of equal "
        "length: else Gloo aborts the process.",
        table(["loss", "V", "shape", "ranks", "shards", "loss, float64", "gradient, float64"], others),
    ]
    return "\n\n".join(parts)


def within(found: Row) -> bool:
    """Whether float64 agrees to rounding, and float32 errs as one process does."""
    exact = max(found["value64"], found["gradient64"]) <= 1e-10
    return exact and max(found["value32"], found["gradient32"]) <= max(1e-5, 3 * found["single32"])


def cell(found: Row, column: str) -> str:
    """A figure, or why there is none."""
    return found.get(f"fails{column[-2:]}") or f"{found[column]:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    args = parse_arguments(parser, "parity.jsonl", threads=1)
    rows = read_or_run(args, jobs(args.threads), SAME)
    print(show(rows))


if __name__ == "__main__":
    main()
