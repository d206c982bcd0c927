"""What views and steps would make the processor wait for on a CUDA device, counted without one, and what TF32 does.

    python benchmarks/accelerators.py > docs/results/accelerators.md

Tensors say that they are on ``cuda:0`` and hold no numbers (``tests/fake_cuda.py``). Counted are what blocks the
processor (copies from or to memory that is not pinned, values read, shapes that depend on numbers, tensors of the CPU
among those of the device) and kernels, as torch would launch them one by one, forward and backward. Views are those of
16 images at 32 px; a step is that of a ResNet of four blocks on 16 images with narrow heads and a probe. TF32 is what
it does to the factors of products, rounded to 10 bits on the CPU, forward and backward; errors are those of value and
gradient against float64. Rows are in ``docs/results/data/accelerators.jsonl``; those from before this work too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from common import DATA, Row, environment, heading, in_this_process, measured_rows, run_jobs, table
from frossl.methods import METHODS
from frossl.views.recipes import VIEWS
from gpu import CASES, ORACLES, Job, case_name, relative, tensors, with_gradients

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "train"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "views"))
from test_train_guard import TRAINED
from test_train_on_device import stepped
from test_views_on_device import view_counts

SAME = ("when", "what")
KINDS = {
    "blocking copy": "blocking copies",
    "value read": "values read",
    "data-dependent shape": "shapes that depend on numbers",
    "CPU and CUDA mixed": "CPU and CUDA mixed",
    "copies": "copies without a wait",
    "kernels": "kernels",
}
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm"}


class TF32(TorchDispatchMode):
    """Factors of products of float32 are rounded to the 10 bits of TF32; sums stay in float32."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in PRODUCTS:
            args = [*args[:-2], *(rounded(x) for x in args[-2:])]
        return func(*args, **(kwargs or {}))


def rounded(x: Tensor) -> Tensor:
    if x.dtype != torch.float32:
        return x
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)  # to nearest, ties to even


def tf32_error(number: int) -> Row:
    """Relative errors of value and gradient in float32, with and without TF32."""
    name, options = CASES[number]
    oracle = ORACLES[name]
    arguments = oracle.arguments(0, 2, 64, 32, **options)

    def found(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        loss, gradients = with_gradients(oracle, tensors(oracle, arguments, dtype))
        return loss.total.detach(), torch.cat([g.flatten() for g in gradients.values()])

    exact, single = found(torch.float64), found(torch.float32)
    with TF32():
        coarse = found(torch.float32)
    row = {}
    for arm, got in (("float32", single), ("TF32", coarse)):
        row |= {f"value, {arm}": relative(got[0], exact[0]), f"gradient, {arm}": relative(got[1], exact[1])}
    return row


def step_counts(method: str, changes: dict[str, Any]) -> Row:
    return stepped(method, warm_up=True, **changes)[0].row()


def jobs() -> Iterator[Job]:
    for name in VIEWS:
        yield {"what": f"views {name}"}, lambda name: view_counts(name, warm_up=True).row(), (name,)
    for name in TRAINED:
        yield {"what": f"step {name}"}, step_counts, (name, {})
    for name, changes in (("lars", {"optimizer": "lars"}), ("no labels", {"labels": False})):
        for method in ("frossl", "byol"):
            yield {"what": f"step {method}, {name}"}, step_counts, (method, changes)
    for number, case in enumerate(CASES):
        yield {"what": f"loss {case_name(case)}"}, tf32_error, (number,)


def page(rows: list[Row]) -> str:
    rows = measured_rows(rows, SAME)
    before, after = ({row["what"]: row for row in rows if row["when"] == when} for when in ("before", "after"))
    about = next(iter(after.values()))["environment"]
    counted = [[what, *_sides(before.get(what), after[what])] for what in after if not what.startswith("loss ")]
    losses = [row for what, row in after.items() if what.startswith("loss ")]
    errors = ("value, float32", "value, TF32", "gradient, float32", "gradient, TF32")
    waiting = ", ".join(name for name in TRAINED if METHODS[name].eigenvalues)
    return "\n\n".join(
        [
            heading("Accelerators", "python benchmarks/accelerators.py", about, __doc__.split("\n\n", 2)[2].strip()),
            f"Before and after, at each place. Methods that may wait, as they take eigenvalues: {waiting}.",
            table(["", *KINDS.values()], counted),
            "## TF32",
            table(
                ["loss", *errors],
                [[row["what"].removeprefix("loss "), *(f"{row[name]:.1e}" for name in errors)] for row in losses],
            ),
        ]
    )


def _sides(before: Row | None, after: Row) -> list[str]:
    return [str(after[kind]) if before is None else f"{before[kind]:,} → {after[kind]:,}" for kind in KINDS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DATA / "accelerators.jsonl")
    given = parser.parse_args()
    about = {"when": "after", "environment": environment(torch.get_num_threads(), "timm")}
    all_jobs = [(about | what, function, arguments) for what, function, arguments in jobs()]
    print(page(run_jobs(all_jobs, given.out, SAME, call=in_this_process)))


if __name__ == "__main__":
    main()
