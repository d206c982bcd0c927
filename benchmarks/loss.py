"""Speed and exactness of the FroSSL loss beside the products it cannot avoid and beside lightly's FroSSLLoss.

    python benchmarks/loss.py [--rounds 60] [--threads 2] [--device cuda]

Forward and backward in float32, one process, the same inputs, timings interleaved round by round. "products" are
the two batched matrix products per view that any implementation needs: the smaller moment matrix, and that matrix
times the embeddings. Exactness: against lightly's own (uncentred) form in float64, and in float32 against float64.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from functools import partial
from pathlib import Path

import lightly
import torch
from lightly.loss import FroSSLLoss as LightlyLoss
from torch import Tensor

from common import interleaved, warm_allocator
from frossl.losses import frossl

SHAPES = {
    (2, 256, 1024): 1.45,
    (8, 256, 1024): 1.35,
    (2, 1024, 1024): 1.15,
    (2, 1024, 2048): 1.15,
    (8, 1024, 1024): 1.15,
}
"""(V, N, D) and the most that the loss may cost, in units of the products."""


def products(z_VND: Tensor) -> None:
    with torch.no_grad():
        n, width = z_VND.shape[1:]
        if n > width:
            z_VND @ (z_VND.transpose(1, 2) @ z_VND)
        else:
            (z_VND @ z_VND.transpose(1, 2)) @ z_VND


def ours(z_VND: Tensor, centre: bool = False) -> Tensor:
    z = z_VND.detach().requires_grad_()
    frossl(z, invariance_weight=1.4, view_scaling="unbiased", centre=centre).total.backward()
    assert z.grad is not None
    return z.grad


def ours_centred(z_VND: Tensor) -> Tensor:
    return ours(z_VND, centre=True)


def lightlys(z_VND: Tensor) -> Tensor:
    z = z_VND.detach().requires_grad_()
    LightlyLoss(invariance_weight=1.4)(list(z)).backward()
    assert z.grad is not None
    return z.grad


def speed(rounds: int, device: torch.device) -> list[str]:
    warm_allocator()
    rows = [
        "| V, N, D | products ms | ours | ours, centred | lightly | ours / products | bound | lightly / products |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for shape, bound in SHAPES.items():
        z = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
        runs = {"products": products, "ours": ours, "centred": ours_centred, "lightly": lightlys}
        times = interleaved({name: partial(run, z) for name, run in runs.items()}, rounds, 5, device)
        ratios = {name: [a / b for a, b in zip(times[name], times["products"], strict=True)] for name in runs}

        def middle(values: list[float], scale: float = 1.0) -> str:
            low, mid, high = statistics.quantiles([v * scale for v in values], n=4)
            return f"{mid:.2f} ({low:.2f}-{high:.2f})"

        rows.append(
            " | ".join(
                [
                    f"| {', '.join(map(str, shape))}",
                    *(middle(times[name], 1e3) for name in runs),
                    f"**{middle(ratios['ours'])}**",
                    f"{bound}",
                    f"{middle(ratios['lightly'])} |",
                ]
            )
        )
    return rows


def exactness(device: torch.device) -> list[str]:
    rows = [
        "| V, N, D | float64 against lightly: value, gradient | float32 error, ours: value, gradient | lightly's own |",
        "|---|---|---|---|",
    ]
    for shape in [(2, 64, 128), (2, 256, 1024), (3, 512, 256), (2, 128, 128), (8, 256, 1024)]:
        z64 = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(device)
        # The two agree when ours scales as the public reference does.
        options = {"invariance_weight": 1.4, "view_scaling": "mean" if shape[0] > 2 else "pairs", "centre": False}
        if shape[0] > 2:
            options["invariance_weight"] = 1.4 * shape[0]

        def both(z: Tensor, options: dict = options) -> list[tuple[Tensor, Tensor]]:
            results = []
            for loss in (lambda x: frossl(x, **options).total, lambda x: LightlyLoss(invariance_weight=1.4)(list(x))):
                x = z.detach().requires_grad_()
                value = loss(x)
                value.backward()
                assert x.grad is not None
                results.append((value.detach().double(), x.grad.double()))
            return results

        terms = frossl(z64, **options).terms.values()
        size = float(sum(abs(term) for term in terms))

        (value, gradient), (their_value, their_gradient) = both(z64)
        (value32, gradient32), (their_value32, their_gradient32) = both(z64.float())

        def error(got: Tensor, exact: Tensor, size: float = size) -> str:
            return f"{float((got - exact).norm()) / (size if exact.ndim == 0 else float(exact.norm())):.1e}"

        rows.append(
            f"| {', '.join(map(str, shape))} | {error(value, their_value)}, {error(gradient, their_gradient)} | "
            f"{error(value32, value)}, {error(gradient32, gradient)} | "
            f"{error(their_value32, value)}, {error(their_gradient32, gradient)} |"
        )
    return rows


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(
        f"{cpu_name()}, {args.threads} threads, on {args.device}; torch {torch.__version__}, "
        f"lightly {lightly.__version__}; float32 matmul precision {torch.get_float32_matmul_precision()}; "
        f"{args.rounds} rounds, median (quartiles); seeds 0 and 1. "
        "Errors are relative, of the value to the sum of the sizes of its terms.\n"
    )
    print("\n".join(speed(args.rounds, args.device)), "\n")
    print("\n".join(exactness(args.device)))


if __name__ == "__main__":
    main()
