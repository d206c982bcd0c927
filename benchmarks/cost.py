"""Time of every objective against views, images and width, and what of it is spent in matrix decompositions.

    python benchmarks/cost.py [--rounds 15] [--threads 2] [--device cuda] > docs/results/cost.md

Forward and backward in float32 on random embeddings, one process; all objectives once a round, medians over rounds.
"Decomposition" is the share of eigenvalues, singular values, Cholesky factors and what is solved with them, by
torch.profiler. Four objectives that have one are also timed beside lightly's, or the plain form of their formula.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from lightly.loss import MMCRLoss, WMSELoss
from torch import Tensor
from torch.nn.functional import normalize

from common import Row, environment, heading, interleaved, parse_arguments, table, warm_allocator, write_rows
from frossl.losses import LOSSES
from frossl.losses.swav import sinkhorn
from frossl.runs.log import read_rows
from plot import BLUE, GREY, RED, Line, Panel, save_plot

CENTRE = (2, 256, 512)
SHAPES = [CENTRE, (4, 256, 512), (8, 256, 512), (2, 128, 512), (2, 512, 512), (2, 256, 256), (2, 256, 1024)]
"""(V, N, D)"""
QUEUE, DIRECTIONS = 4096, 256
DECOMPOSITION = re.compile(r"linalg_(eig|svd|cholesky|lu|solve|inv|ldl|qr)|cholesky_|slogdet|triangular_solve")
Objective = Callable[[Tensor], Tensor]


def noise(*shape: int, device: torch.device) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(device)


def objectives(shape: tuple[int, int, int], device: torch.device) -> dict[str, Objective]:
    """Every objective as a function of embeddings, or scores, of ``shape`` alone."""
    views, n, width = shape
    labels, targets = torch.arange(n, device=device) % 10, noise(*shape, device=device)
    queue = normalize(noise(views, QUEUE, width, device=device), dim=2)
    directions = noise(width, DIRECTIONS, device=device)
    mean, covariance = torch.zeros(views, width).double(), torch.eye(width).double().repeat(views, 1, 1)
    mean, covariance, centre = (x.to(device) for x in (mean, covariance, torch.zeros(width)))
    special: dict[str, Callable[..., Tensor]] = {
        "byol": lambda loss, z: loss(z, targets),
        "corinfomax": lambda loss, z: loss(z, mean, covariance),
        "cross_entropy": lambda loss, z: loss(z, labels),
        "dino": lambda loss, z: loss(z, targets, centre),
        "moco": lambda loss, z: loss(z, targets, queue),
        "sigreg": lambda loss, z: loss(z, directions),
        "simsiam": lambda loss, z: loss(z, targets),
        "supcon": lambda loss, z: loss(z, labels),
        "swav": lambda loss, z: loss(z, sinkhorn(z.detach())),
        "wmse": lambda loss, z: loss(z, epsilon=0.1),
    }

    def objective(name: str) -> Objective:
        loss, call = LOSSES[name], special.get(name, lambda loss, z: loss(z))
        return lambda z: call(loss, z).total

    return {name: objective(name) for name in LOSSES}


def plain_mmcr(z: Tensor) -> Tensor:
    return -torch.linalg.svd(normalize(z, dim=2).mean(0), full_matrices=False).S.sum()


def lightly_mmcr(z: Tensor) -> Tensor:
    unit = normalize(z, dim=2).transpose(0, 1)
    return MMCRLoss(lmda=0.0)(unit[:, :1], unit[:, 1:]) if len(z) == 2 else MMCRLoss(lmda=0.0)(*unit.chunk(2, 1))


def plain_ivne(z: Tensor) -> Tensor:
    z = normalize(z, dim=2)
    total = z.new_zeros(())
    for u, v in combinations(range(len(z)), 2):
        spectra = [torch.linalg.svd(z[i] / len(z[i]) ** 0.5, full_matrices=False).S.square() for i in (u, v)]
        entropy = sum(-(x * (x + 1e-12).log()).sum() for x in spectra) / 2
        total = total - 4.16 * (z[u] * z[v]).sum(1).mean() - entropy
    return total / (len(z) * (len(z) - 1) / 2)


def plain_corinfomax(z: Tensor) -> Tensor:
    z = normalize(z, dim=2)
    width = z.shape[2]
    one = torch.eye(width, dtype=torch.float64, device=z.device)
    total = z.new_zeros(())
    for u, v in combinations(range(len(z)), 2):
        for x in (z[u].double(), z[v].double()):
            x = x - 0.99 * x.mean(0)
            covariance = 0.01 * one + 0.99 * x.T @ x / len(x)
            total = total - torch.logdet(covariance + 1e-6 * one) / width
        total = total + 500 * (z[u] - z[v]).square().mean()
    return total / (len(z) * (len(z) - 1) / 2)


def full_rank_wmse(z: Tensor) -> Tensor:
    return LOSSES["wmse"](z).total


def lightly_wmse(z: Tensor) -> Tensor:
    views, n, width = z.shape
    return WMSELoss(width, w_size=n, num_samples=views, track_running_stats=False)(z.flatten(0, 1))


PEERS: list[tuple[str, str, Objective, list[tuple[int, int, int]]]] = [
    ("mmcr", "`linalg.svd` of the mean", plain_mmcr, [(2, 256, 512), (8, 256, 512), (2, 512, 512)]),
    ("mmcr", "lightly, lambda 0", lightly_mmcr, [(2, 256, 512)]),
    ("ivne", "`linalg.svd` of both views, pair by pair", plain_ivne, [(2, 256, 512), (8, 256, 512)]),
    ("corinfomax", "`logdet` of both views, pair by pair", plain_corinfomax, [(2, 256, 512), (8, 256, 512)]),
    ("wmse", "lightly, one permutation", lightly_wmse, [(2, 256, 128), (8, 256, 128)]),
]
"""Objective, what it is compared with, and at which (V, N, D)."""


def both_ways(objective: Objective, z: Tensor) -> Callable[[], Tensor]:
    """Value and gradient."""

    def run() -> Tensor:
        x = z.detach().requires_grad_()
        value = objective(x)
        value.backward()
        return value.detach()

    return run


def times(rounds: int, device: torch.device) -> dict[str, dict[tuple[int, int, int], float]]:
    """Milliseconds by objective and shape."""
    result: dict[str, dict[tuple[int, int, int], float]] = {name: {} for name in LOSSES}
    for shape in SHAPES:
        z = noise(*shape, device=device)
        runs = {name: both_ways(objective, z) for name, objective in objectives(shape, device).items()}
        for name, took in interleaved(runs, rounds, device=device).items():
            result[name][shape] = statistics.median(took) * 1e3
    return result


def decompositions(device: torch.device) -> dict[str, tuple[str, float]]:
    """The decompositions of each objective, and their share of its time at the centre of the grid.

    On CUDA it is the share of the time of the device, in kernels that each operation started.
    """
    result = {}
    kinds = torch.profiler.ProfilerActivity
    on_cuda = device.type == "cuda"

    def spent(event: Any) -> float:
        return event.self_device_time_total if on_cuda else event.self_cpu_time_total

    for name, objective in objectives(CENTRE, device).items():
        run = both_ways(objective, noise(*CENTRE, device=device))
        run()
        with torch.profiler.profile(activities=[kinds.CPU, kinds.CUDA] if on_cuda else [kinds.CPU]) as profile:
            for _ in range(3):
                run()
        events = [event for event in profile.key_averages() if event.device_type == torch.autograd.DeviceType.CPU]
        found = [event for event in events if DECOMPOSITION.search(event.key)]
        words = {word for event in found for word in ("eigh", "svd", "cholesky", "solve") if word in event.key}
        every = sum(spent(event) for event in events)
        result[name] = (", ".join(sorted(words)), sum(spent(event) for event in found) / every)
    return result


def beside_peers(rounds: int, device: torch.device) -> Iterable[dict]:
    """Medians of ours, of the other, and of their ratio round by round."""
    for name, what, peer, shapes in PEERS:
        for shape in shapes:
            z = noise(*shape, device=device)
            ours = full_rank_wmse if name == "wmse" else objectives(shape, device)[name]
            runs = {"ours": both_ways(ours, z), "peer": both_ways(peer, z)}
            a, b = (float(run()) for run in runs.values())
            assert abs(a - b) <= 1e-3 * abs(b), f"{name} and {what} are not the same: {a}, {b}"
            got = interleaved(runs, rounds, 1, device)
            yield {
                "loss": name,
                "peer": what,
                "shape": shape,
                "ours_ms": statistics.median(got["ours"]) * 1e3,
                "peer_ms": statistics.median(got["peer"]) * 1e3,
                "ratio": statistics.median(b / a for a, b in zip(got["ours"], got["peer"], strict=True)),
            }


def draw(path: Path, measured: dict[str, dict[tuple[int, int, int], float]], needs: dict[str, str]) -> None:
    """Three panels: time against V, N and D."""
    panels = []
    for axis, name in enumerate(("views V", "images N", "width D")):
        shapes = sorted(s for s in SHAPES if all(s[i] == CENTRE[i] for i in range(3) if i != axis))
        rest = ", ".join(f"{letter} = {CENTRE[i]}" for i, letter in enumerate("VND") if i != axis)
        lines = [
            Line(
                loss,
                [(s[axis], ms[s]) for s in shapes],
                BLUE if loss == "frossl" else RED if needs[loss] else GREY,
                loss == "frossl",
            )
            for loss, ms in measured.items()
        ]
        panels.append(Panel(f"{name.split()[0].capitalize()} ({rest})", name, "ms, forward and backward", lines))
    save_plot(path, panels, [(RED, "needs a matrix decomposition"), (GREY, "needs none"), (BLUE, "FroSSL: none")])


def measured_here(rounds: int, device: torch.device) -> list[Row]:
    """A row for each loss and shape, and for each that has a peer and shape."""
    ms, shares = times(rounds, device), decompositions(device)
    how = {"rounds": rounds, "device": str(device)}
    rows: list[Row] = [
        {"loss": name, "shape": shape, "ms": took, "decomposition": shares[name][0], "share": shares[name][1], **how}
        for name, by_shape in ms.items()
        for shape, took in by_shape.items()
    ]
    return [*rows, *(row | how for row in beside_peers(max(3, rounds // 3), device))]


def show(rows: list[Row], out: Path, plot: Path) -> str:
    """The page of results; draws the plot."""
    own, peers = ([row for row in rows if ("peer" in row) == with_peer] for with_peer in (False, True))
    measured: dict[str, dict[tuple[int, int, int], float]] = {}
    for row in own:
        measured.setdefault(row["loss"], {})[tuple(row["shape"])] = row["ms"]  # type: ignore[index]
    shares = {row["loss"]: (row["decomposition"], row["share"]) for row in own}
    draw(plot, measured, {name: words for name, (words, _) in shares.items()})
    device, rounds = own[0]["device"], own[0]["rounds"]
    note = (
        f"Milliseconds of value and gradient in float32 on {device}, median of "
        f"{rounds} interleaved rounds, on normal noise (seed 1). V = 2, N = 256, D = 512 where nothing else is "
        "said. Heads, averaged networks and views are not in it. W-MSE has an epsilon, as here N is not always above "
        f"D; MoCo's queues hold {QUEUE:,} keys for each of V views, SIGReg has {DIRECTIONS} directions; for "
        "SwAV (with Sinkhorn), DINO and cross entropy D is the number of scores."
    )
    columns = {"V=2": 0, "V=4": 1, "V=8": 2, "N=128": 3, "N=512": 4, "D=256": 5, "D=1024": 6}
    lines = []
    for name, ms in sorted(measured.items(), key=lambda item: item[1][CENTRE]):
        words, share = shares[name]
        values = [f"{ms[SHAPES[i]]:.1f}" for i in columns.values()]
        growth = f"{ms[8, 256, 512] / ms[CENTRE]:.1f}"
        lines.append([f"`{name}`", *values, growth, f"{words}: {100 * share:.0f} %" if words else "none"])
    beside = [
        [
            f"`{r['loss']}`",
            r["peer"],
            ", ".join(map(str, r["shape"])),
            f"{r['ours_ms']:.1f}",
            f"{r['peer_ms']:.1f}",
            f"{r['ratio']:.1f}",
        ]
        for r in peers
    ]
    command = f"python benchmarks/cost.py --device {device}; --table"
    return "\n\n".join(
        [
            heading("What the objectives cost", command, own[0]["environment"], note),
            table(["loss", *columns, "V=8 / V=2", "decomposition: share at V=2"], lines),
            f"![time against views, images and width]({plot.name})",
            "## Beside other code",
            "Same value to 1e-3; medians, and the median of the ratios round by round.",
            table(["loss", "other", "V, N, D", "ours ms", "other ms", "other / ours"], beside),
            f"Rows: `{out.name}`.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--plot", type=Path, default=Path("docs/results/cost.svg"))
    args = parse_arguments(parser, "cost.jsonl", threads=torch.get_num_threads())
    torch.set_num_threads(args.threads)
    warm_allocator()
    if not args.table:
        write_rows(args.out, measured_here(args.rounds, args.device), environment(args.threads, "lightly"))
    print(show(read_rows(args.out), args.out, args.plot))


if __name__ == "__main__":
    main()
