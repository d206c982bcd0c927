"""Where bf16 convolutions on the CPU are not what they are in float32, and what it costs to run those in float32.

    python benchmarks/bf16_convolution.py [--draws 1000] [--steps 100] > docs/results/bf16-convolution.md
    python benchmarks/bf16_convolution.py --table > docs/results/bf16-convolution.md

Output and gradients of layers that are called again and again with the same input. "Filled with NaN": so is what malloc
gives out (glibc), and what reads memory that nobody wrote always shows; else memory is as it happens to be. Draws vary
everything at once, to find what the rule of ``frossl.nn.convolution`` misses. The step is that of ``cifar10-cpu``.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import itertools
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from common import (
    Row,
    environment,
    heading,
    in_this_process,
    latest,
    parse_arguments,
    read_or_run,
    table,
)
from frossl.commands.bench import noise
from frossl.data.loader import training_batches
from frossl.nn.convolution import narrow_in_float32
from frossl.train.loop import build
from frossl.train.ranks import start
from frossl.train.step import Stepper
from training import recipe_of_studies

MAPS = ((1, 1), (2, 1), (8, 1), (1, 2), (1, 8), (2, 2), (3, 3), (4, 4))
NAMES = ("output", "gradient of the input", "gradient of the weight", "gradient of the bias")
Pair = tuple[int, ...]
SAME = ("part", "case")
GRID_CALLS, CALLS = 10, 100
RULE = (
    "Bad are convolutions of maps that are narrower than the stride: width of the map < horizontal stride, whatever "
    "the height. oneDNN then reads memory that nobody wrote, and the gradient of the weight is NaN or another one from "
    "call to call. Not all of them are bad. All of them run in float32 (`frossl.nn.convolution`): their maps are small."
)
OTHER = (
    "What is bad with the rule or in float32 is another fault, which is left alone: the output of channels_last "
    "convolutions with vertical stride 1 and a greater horizontal one, one input channel per group and several output "
    "channels, if it is one pixel wide. No encoder that we know has such a layer."
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A convolution and what it is called with; pairs are height and width, or what goes in and out."""

    kernel: Pair = (3, 3)
    stride: Pair = (2, 2)
    padding: Pair = (1, 1)
    map: Pair = (1, 1)
    channels: Pair = (64, 64)
    batch: int = 16
    groups: int = 1
    dilation: Pair = (1, 1)
    channels_last: bool = True
    autocast: bool = True


@contextmanager
def nan_in_fresh_memory() -> Iterator[None]:
    """What malloc gives out inside is filled with bytes 0xff."""
    allocator, perturb = ctypes.CDLL(None), -6
    allocator.mallopt(perturb, 0x100)
    yield
    allocator.mallopt(perturb, 0)


def outcome(case: Case, calls: int, bf16: bool = True, fixed: bool = False) -> Counter[tuple[str, str]]:
    """Calls in which a tensor was not finite; not what it was in the first; more than 2 % off float32."""
    torch.manual_seed(0)
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    shape = case.kernel, case.stride, case.padding, case.dilation, case.groups
    conv = nn.Conv2d(case.channels[0], case.channels[1], *shape)  # pyright: ignore[reportArgumentType]
    conv.bfloat16().to(memory_format=layout)
    x = torch.randn(case.batch, case.channels[0], *case.map).bfloat16().to(memory_format=layout)
    g = None

    def call(bf16: bool) -> list[Tensor]:
        nonlocal g
        dtype = torch.bfloat16 if bf16 and not case.autocast else torch.float32
        image = x.to(dtype, copy=True).requires_grad_()
        with narrow_in_float32(conv.to(dtype), x.device, fixed), torch.autocast("cpu", torch.bfloat16, bf16):
            y = conv(image)
        g = torch.randn(y.shape).bfloat16() if g is None else g
        return [t.detach().float() for t in (y, *torch.autograd.grad(y, [image, *conv.parameters()], g.to(y.dtype)))]

    expected, found, first = call(False), Counter(), None
    for _ in range(calls):
        got = call(bf16)
        first = first or got
        for name, a, b, c in zip(NAMES, got, first, expected, strict=True):
            found[name, "NaN"] += not a.isfinite().all()
            found[name, "other"] += not torch.equal(a, b)
            found[name, "wrong"] += not (a - c).abs().max() <= 0.02 * c.abs().max() + 1e-3
    return +found


def grid_row(kernel: int, stride: int) -> Row:
    """Calls by map whose gradient of the weight is NaN where fresh memory is."""
    cases = [Case((kernel,) * 2, (stride,) * 2, (kernel // 2,) * 2, size) for size in MAPS]
    with nan_in_fresh_memory():
        return {"nan": [outcome(case, GRID_CALLS)[NAMES[2], "NaN"] for case in cases]}


CHANGED = {
    "64 channels, batch 16, channels_last, autocast, one thread": Case(),
    **{f"{c} channels": Case(channels=(c, c)) for c in (4, 8, 16, 32, 128, 256, 512)},
    **{f"batch {n}": Case(batch=n) for n in (1, 4, 128)},
    **{f"{g} groups": Case(groups=g) for g in (2, 8, 64)},
    "8 groups, 8 to 64 channels, stride 1 x 2, 8 x 1 pixels": Case(
        groups=8, channels=(8, 64), stride=(1, 2), map=(8, 1)
    ),
    "dilation 2, padding 2": Case(dilation=(2, 2), padding=(2, 2)),
    "contiguous": Case(channels_last=False),
    "tensors in bf16": Case(autocast=False),
    "two threads": Case(),
}


def changed_row(name: str) -> Row:
    """3 x 3 with stride 2 on one pixel and one thing changed; memory as it happens to be, and filled with NaN."""
    torch.set_num_threads(2 if name == "two threads" else 1)
    found = outcome(CHANGED[name], CALLS)
    with nan_in_fresh_memory():
        filled = outcome(CHANGED[name], CALLS)
    torch.set_num_threads(1)
    counts = {what: found[NAMES[2], what] for what in ("NaN", "other", "wrong")}
    where = [tensor for tensor in NAMES if filled[tensor, "NaN"]]
    return {"counts": counts, "filled": filled[NAMES[2], "NaN"], "where": where}


def drawn(draw: random.Random) -> Case:
    """Any convolution that is small and fits its map."""
    while True:
        kernel = [draw.choice((1, 2, 3, 3, 5, 7)) for _ in range(2)]
        dilation = [1 if k == 1 else draw.choice((1, 1, 1, 2)) for k in kernel]
        padding = [draw.choice((0, k // 2, draw.randint(0, k))) for k in kernel]
        size = [draw.choice((1, 1, 2, 2, 3, 4, 5, 8, 13)) for _ in range(2)]
        inputs, outputs = (draw.choice((1, 3, 4, 8, 16, 24, 32, 64, 128, 256)) for _ in range(2))
        groups = draw.choice([1, 1, 1, *(g for g in (2, 4, 8, inputs) if inputs % g == outputs % g == 0)])
        stride, batch = (
            [draw.choice((1, 2, 2, 3, 4)) for _ in range(2)],
            draw.choice((1, 2, 3, 8, 16, 32, 64)),
        )
        work = kernel[0] * kernel[1] * size[0] * size[1] * inputs * outputs * batch / groups
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
        if work < 1e8 and all(m + 2 * p >= r for m, p, r in zip(size, padding, reach, strict=True)):
            return Case(
                kernel=tuple(kernel),
                stride=tuple(stride),
                padding=tuple(padding),
                map=tuple(size),
                channels=(inputs, outputs),
                batch=batch,
                groups=groups,
                dilation=tuple(dilation),
                channels_last=draw.random() < 0.6,
                autocast=draw.random() < 0.6,
            )


def draws_row(count: int, threads: int) -> Row:
    """How many were wrong in anything, where the rule applies and where not; in bf16, with the rule, in float32."""
    torch.set_num_threads(threads)
    draw, total, bad = random.Random(threads), Counter(), Counter()
    with nan_in_fresh_memory():
        for _ in range(count):
            case = drawn(draw)
            narrow = "narrower" if case.map[1] < case.stride[1] else "not"
            total[narrow] += 1
            bad[narrow, "bf16"] += bool(outcome(case, 2))
            bad[narrow, "rule"] += bool(outcome(case, 2, fixed=True))
            bad[narrow, "float32"] += bool(outcome(case, 2, bf16=False))
    torch.set_num_threads(1)
    kinds = ("bf16", "rule", "float32")
    return {narrow: [total[narrow], *(bad[narrow, kind] for kind in kinds)] for narrow in ("narrower", "not")}


def step_row(pairs: int) -> Row:
    """Processor time of a step without the rule, and with it as a multiple: median and quartiles."""
    config = dataclasses.replace(recipe_of_studies(), data="noise", device="cpu", precision="bf16")
    data = noise(512, 32)
    learner, plan = build(config, data)
    stepper = Stepper(learner, plan, start(config))
    batch = next(training_batches(data, plan.recipe, batch=plan.batch, seed=0, device=plan.device))

    def took(with_rule: bool) -> float:
        without = mock.patch("frossl.train.step.narrow_in_float32", return_value=nullcontext())
        with nullcontext() if with_rule else without:
            began = time.process_time()
            stepper(batch, 0, 0.5, 1.0)
            return time.process_time() - began

    order = [number % 2 == 0 for number in range(3 + pairs)]
    times = [{first: took(first), not first: took(not first)} for first in order][3:]
    ratios = [t[True] / t[False] for t in times]
    alone_ms = 1e3 * statistics.median(t[False] for t in times)
    return {"alone_ms": alone_ms, "quartiles": statistics.quantiles(ratios, n=4), "pairs": pairs}


def jobs(args: argparse.Namespace) -> Iterator[tuple[Row, Callable[..., Row], tuple[Any, ...]]]:
    flags = Path("/proc/cpuinfo").read_text().split()
    has = ", ".join(name for name in ("avx512_bf16", "amx_bf16") if name in flags) or "nothing"
    about = {"environment": environment(1), "bf16": has}
    for kernel, stride in itertools.product((1, 2, 3, 5, 7), (1, 2, 3)):
        row = {"part": "grid", "case": f"{kernel} x {kernel}, stride {stride}"}
        yield row | about, grid_row, (kernel, stride)
    for name in CHANGED:
        yield {"part": "changed", "case": name} | about, changed_row, (name,)
    for threads in (1, 2):
        yield {"part": "draws", "case": str(threads)} | about, draws_row, (args.draws // 2, threads)
    yield {"part": "step", "case": "cifar10-cpu"} | about, step_row, (args.steps,)


def show(rows: list[Row], out: Path) -> str:
    """The page of results."""
    parts: dict[str, dict[str, Row]] = {}
    for row in latest(rows, SAME):
        if "error" not in row:
            parts.setdefault(row["part"], {})[row["case"]] = row
    title, command = "Convolutions in bf16 on the CPU", "python benchmarks/bf16_convolution.py; --table"
    changed = [
        [name, *row["counts"].values(), row["filled"], ", ".join(row["where"]) or "–"]
        for name, row in parts["changed"].items()
    ]
    drawn_rows = [[t, narrow, *row[narrow]] for t, row in parts["draws"].items() for narrow in ("narrower", "not")]
    step = parts["step"]["cifar10-cpu"]
    low, middle, high = step["quartiles"]
    page = [
        heading(title, command, rows[-1]["environment"], f"For bf16 the processor has {rows[-1]['bf16']}.", RULE),
        "## By kernel and map, height x width",
        f"Calls of {GRID_CALLS} whose gradient of the weight is NaN where fresh memory is filled with NaN; padding is "
        "half the kernel, 64 channels, batch 16.",
        table(
            ["kernel", *(f"{h} x {w}" for h, w in MAPS)],
            [[name, *(n or "" for n in row["nan"])] for name, row in parts["grid"].items()],
        ),
        "## A 3 x 3 convolution with stride 2 on one pixel",
        f"Calls of {CALLS}, memory as it happens to be: gradient of the weight NaN, other than in the first call, more "
        "than 2 % off float32. Then with memory filled with NaN, and what is NaN there. Each row changes one thing of "
        "the first.",
        table(["", "NaN", "other than the first", "wrong", "NaN in memory of NaN", "in the"], changed),
        "## Draws",
        "Kernel, stride, padding, map, dilation (each way by itself), channels, batch, groups, layout and type at "
        "random, memory filled with NaN. Bad is what is not finite, other in a second call, or more than 2 % off "
        "float32, in the output or any gradient.",
        table(["threads", "map and stride", "convolutions", "bad in bf16", "with the rule", "in float32"], drawn_rows),
        OTHER,
        "## A step of `cifar10-cpu`",
        "Its maps are 32, 16, 8, 4 and 2 pixels wide, those of `fashion-mnist-cpu` 28, 14, 7, 4 and 2, and strides at "
        "most 2: all run in bf16 as before (`tests/recipes/test_recipes.py`). Processor time of one thread, steps with "
        f"and without the rule in turns: {step['alone_ms']:.0f} ms without the rule; with it, times {middle:.4f} "
        f"({low:.4f} to {high:.4f}) (median, quartiles of {step['pairs']} pairs).",
        f"Rows: `{out.name}`.",
    ]
    return "\n\n".join(page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100)
    args = parse_arguments(parser, "bf16-convolution.jsonl")
    torch.set_num_threads(1)
    rows = read_or_run(args, jobs(args), SAME, in_this_process)
    print(show(rows, args.out))


if __name__ == "__main__":
    main()
