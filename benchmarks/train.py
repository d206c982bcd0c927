"""Images per second of whole training, beside lightly's FroSSL example, and of its ceiling, all in one run.

    python benchmarks/train.py --data path/to/cifar10 [--rounds 2] [--views 2 4 8] [--threads 2] [--table]

The same ResNet-18 with its 7x7 stem, batch 256, head 2048-2048, SGD, CIFAR-10. "lightly" is its example for FroSSL as
published: torchvision's network, VICRegTransform in a DataLoader with 8 workers, FroSSLLoss, float32. "lightly
bf16" is that with bfloat16 autocast and channels_last switched on by hand. "eager" and "compiled" are this project's
views, "ahead" makes the eager ones in a thread while the step before is taken. The ceiling is the step alone on random
views that are there already, taken in the same process before and after the steps with views. Every cell is a process
of its own, all in one environment, with an allocator that keeps freed memory; that favours lightly's arms, which as
published would fetch it anew from the system. Arms take turns, round by round, and ratios are medians over rounds.
Rows go to ``docs/results/data/train.jsonl``; what is there is not done again, so that more ``--rounds`` go on.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from common import Row, environment, heading, measured_rows, parse_arguments, run_jobs, table
from frossl.commands.bench import noise
from frossl.core.machine import has_compiler, keep_freed_pages
from frossl.data.loader import Batch, training_batches
from frossl.data.types import Split
from frossl.methods import METHODS
from frossl.runs.config import Config
from frossl.runs.data import load_run_data
from frossl.runs.log import read_rows
from frossl.train.loop import build
from frossl.train.ranks import start
from frossl.train.step import Stepper

SAME = ("round", "views", "arm")
BATCH, WARM_UP, IMAGES = 256, 3, 16_384
WORKERS = 8
"""Of lightly's example."""
GOALS = {"lightly": 1.6, "lightly bf16": 1.1}
OF_CEILING = 0.9
ABOUT = (__doc__ or "").split("\n\n", 2)[2].strip()


class Pictures(torch.utils.data.Dataset):
    """CIFAR-10 as torchvision gives it: PIL images, through a transform."""

    def __init__(self, images_NCHW: Tensor, transform: Callable[[Image.Image], Any]) -> None:
        self.arrays, self.transform = images_NCHW.permute(0, 2, 3, 1).contiguous().numpy(), transform

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(Image.fromarray(self.arrays[index]))


def saved(source: str, directory: str) -> str:
    """The first training images of ``source`` in a file that every arm reads, so that each need not decode them."""
    images = load_run_data(Config(data=source)).train.images
    assert isinstance(images, Tensor)
    path = f"{directory}/images.pt"
    torch.save(images[:IMAGES].clone(), path)
    return path


def config_of(views: int) -> Config:
    return Config(
        data="as saved",
        objective=METHODS["frossl"].Config(projector="2048-bn-relu-2048"),
        view_recipe="imagenet-vicreg",
        size=32,
        views=views,
        stem="imagenet",
        batch=BATCH,
        optimizer="sgd",
        lr=0.06,
    )


def seconds_of(step: Callable[[int], object], steps: int) -> float:
    began = time.perf_counter()
    for number in range(steps):
        step(number)
    return time.perf_counter() - began


def ours(data: str, views: int, threads: int, steps: int, how: str) -> Row:
    """Training as ``frossl pretrain`` does it, views made as ``how`` says, between steps on views that are ready."""
    torch.set_num_threads(threads)
    keep_freed_pages()
    config, split = config_of(views), Split(torch.load(data))
    opened = dataclasses.replace(noise(2, 32), train=split, test=split)
    learner, plan = build(config, opened)
    take = Stepper(learner, plan, start(config))
    learner.train()

    def made() -> Generator[Batch, None, None]:
        return training_batches(  # type: ignore[return-value]
            opened,
            plan.recipe,
            batch=BATCH,
            seed=0,
            device=plan.device,
            compiled=how == "compiled",
            prefetch=how == "ahead",
        )

    first = next(made())
    ready = dataclasses.replace(first, views=[torch.randn_like(x) for x in first.views])

    def on_ready(number: int) -> None:
        take(ready, number, 0.5, 1.0)

    seconds_of(on_ready, WARM_UP)
    before, batches = seconds_of(on_ready, steps // 2), made()
    with_views = seconds_of(lambda number: take(next(batches), number, 0.5, 1.0), steps)
    batches.close()  # of "ahead", which would make another batch beside the next steps
    ceiling = (before + seconds_of(on_ready, steps // 2)) / (2 * (steps // 2))
    return {"images_s": BATCH * steps / with_views, "of_ceiling": ceiling * steps / with_views}


def lightlys(data: str, threads: int, steps: int, by_hand: bool) -> Row:
    """Training as in lightly's example; ``by_hand`` with bfloat16 autocast and channels_last."""
    import torchvision
    from lightly.loss import FroSSLLoss
    from lightly.models.modules.heads import VICRegProjectionHead
    from lightly.transforms.vicreg_transform import VICRegTransform

    torch.set_num_threads(threads)
    keep_freed_pages()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resnet = torchvision.models.resnet18()
    backbone = nn.Sequential(*list(resnet.children())[:-1], nn.Flatten())
    model = nn.Sequential(backbone, VICRegProjectionHead(512, 2048, 2048, 2)).to(device)
    layout = torch.channels_last if by_hand else torch.contiguous_format
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    criterion, optimizer = FroSSLLoss(), torch.optim.SGD(model.parameters(), lr=0.06)
    loader = torch.utils.data.DataLoader(
        Pictures(torch.load(data), VICRegTransform(input_size=32)),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
    )
    batches = iter(loader)

    def step(number: int) -> None:
        views = [x.to(device, memory_format=layout) for x in next(batches)]
        with torch.autocast(device.type, torch.bfloat16, enabled=by_hand):
            z = [model(x) for x in views]
        loss = criterion([x.float() for x in z])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds_of(step, WARM_UP)
    return {"images_s": BATCH * steps / seconds_of(step, steps)}


def jobs(args: argparse.Namespace, data: str) -> Iterator[tuple[Row, Callable[..., Row], tuple[Any, ...]]]:
    about = environment(args.threads, "torchvision", "lightly", "timm")
    how = ("eager", "ahead", *(["compiled"] if has_compiler() else []))
    for number in range(args.rounds):
        row = {"round": number, "environment": about, "steps": args.steps}
        for name in GOALS:
            yield row | {"views": 2, "arm": name}, lightlys, (data, args.threads, args.steps, name != "lightly")
        for views in args.views:
            for name in how:
                yield row | {"views": views, "arm": name}, ours, (data, views, args.threads, args.steps, name)


def show(rows: list[Row]) -> str:
    """The page of results: a table for each machine."""
    rows = measured_rows(rows, SAME)
    command = "python benchmarks/train.py --data path/to/cifar10 --rounds ROUNDS; --table"
    goals = (
        "Goals, with eager views: "
        + "; ".join(f"{goal} times {peer}" for peer, goal in GOALS.items())
        + f"; {OF_CEILING} of the ceiling at each number of views. Rounds on another machine stand by themselves."
    )
    parts = [heading("Whole training beside lightly", command, rows[-1]["environment"], ABOUT, goals)]
    for where in reversed(dict.fromkeys(place(row) for row in rows)):
        same = [row for row in rows if place(row) == where]
        rounds = len({row["round"] for row in same})
        parts += [f"## {where}", f"Rounds: {rounds}, of {same[-1]['steps']} steps. {judged(same)}", speeds(same)]
    return "\n\n".join(parts)


def place(row: Row) -> str:
    about = row["environment"]
    return f"{about['processor']}, torch {about['torch']}, {about['date']}"


def ratio(rows: list[Row], arm: tuple[int, str], base: tuple[int, str]) -> float | None:
    """The median over rounds of the speed of an arm over that of another."""
    speed = {tuple(row[name] for name in SAME): row["images_s"] for row in rows}
    rounds = sorted({row["round"] for row in rows})
    pairs = [speed[r, *arm] / speed[r, *base] for r in rounds if (r, *arm) in speed and (r, *base) in speed]
    return statistics.median(pairs) if pairs else None


def of_ceiling(rows: list[Row], arm: tuple[int, str]) -> float | None:
    found = [row["of_ceiling"] for row in rows if (row["views"], row["arm"]) == arm and "of_ceiling" in row]
    return statistics.median(found) if found else None


def judged(rows: list[Row]) -> str:
    """Which goals eager views reach here."""
    found = [(f"of {peer}", ratio(rows, (2, "eager"), (2, peer)), goal) for peer, goal in GOALS.items()]
    views = sorted({row["views"] for row in rows})
    found += [(f"of the ceiling at V = {v}", of_ceiling(rows, (v, "eager")), OF_CEILING) for v in views]
    said = [f"{value:.2f} {what} ({'reached' if value >= goal else 'missed'})" for what, value, goal in found if value]
    return f"Eager views: {', '.join(said)}."


def speeds(rows: list[Row]) -> str:
    """The table of a machine."""
    speed = {tuple(row[name] for name in SAME): row["images_s"] for row in rows}
    rounds = sorted({row["round"] for row in rows})
    lines = []
    for arm in sorted({(row["views"], row["arm"]) for row in rows}, key=lambda arm: (arm[0], _ORDER.index(arm[1]))):
        values = [speed[r, *arm] for r in rounds if (r, *arm) in speed]
        of = [*(ratio(rows, arm, (2, peer)) if arm[0] == 2 else None for peer in GOALS), of_ceiling(rows, arm)]
        cells = ["" if x is None else f"{x:.2f}" for x in of]
        lines.append([*arm, f"{statistics.median(values):,.0f}", f"{min(values):,.0f} to {max(values):,.0f}", *cells])
    return table(
        ["views", "arm", "images/s", "of the rounds", *(f"of {peer}" for peer in GOALS), "of the ceiling"], lines
    )


_ORDER = (*GOALS, "eager", "ahead", "compiled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--views", type=int, nargs="+", default=[2, 4, 8])
    args = parse_arguments(parser, "train.jsonl", threads=2)
    if args.table:
        rows = read_rows(args.out)
    else:
        with tempfile.TemporaryDirectory() as directory:
            rows = run_jobs(jobs(args, saved(args.data, directory)), args.out, SAME)
    print(show(rows))


if __name__ == "__main__":
    main()
