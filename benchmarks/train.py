"""Images per second of whole training, beside lightly's FroSSL example, and of its ceiling, all in one run.

    python benchmarks/train.py [--data cifar10] [--threads 2] [--steps 8] [--rounds 3] [--out docs/results/train.md]

The same ResNet-18 with its 7x7 stem, batch 256, head 2048-2048, SGD. "lightly" is its examples/pytorch/frossl.py:
torchvision's network, VICRegTransform in a DataLoader (as many workers as threads here, at most the example's 8),
FroSSLLoss, in float32. "lightly bf16" is that with bfloat16 autocast and channels_last switched on by
hand. "ceiling" is this project's step on random views that are there already. Every arm has a process of its own and
the arms take turns, round by round. The goals are ratios in one round's run: 1.6 and 1.1 times lightly's two
arms, and 0.9 of the ceiling with 2, 4 and 8 views.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from common import environment, heading, in_fresh_process, synthetic, table
from frossl.data.loader import training_batches
from frossl.data.types import Split
from frossl.methods.frossl import FroSSL
from frossl.train.config import Config, make_plan
from frossl.train.loop import build
from frossl.train.run import open as open_data
from frossl.views.colour import has_compiler

BATCH, WARM_UP, IMAGES = 256, 3, 16_384
GOALS = {"lightly": 1.6, "lightly bf16": 1.1}
OF_CEILING = 0.9


class Pictures(torch.utils.data.Dataset):
    """CIFAR-10 as torchvision gives it: PIL images, through a transform."""

    def __init__(self, images_NCHW: Tensor, transform: Callable[[Image.Image], Any]) -> None:
        self.arrays, self.transform = images_NCHW.permute(0, 2, 3, 1).numpy(), transform

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(Image.fromarray(self.arrays[index]))


def saved(source: str, directory: str) -> str:
    """The first training images of ``source`` in a file that every arm reads, so that each need not decode them."""
    images = open_data(Config(data=source), Console(quiet=True)).train.images
    assert isinstance(images, Tensor)
    path = f"{directory}/images.pt"
    torch.save(images[:IMAGES].clone(), path)
    return path


def config_of(views: int) -> Config:
    return Config(
        data="as saved",
        objective=FroSSL.Config(projector="2048-bn-relu-2048"),
        view_recipe="imagenet-vicreg",
        size=32,
        views=views,
        stem="imagenet",
        batch=BATCH,
        optimizer="sgd",
        lr=0.06,
    )


def timed(step: Callable[[], object], steps: int) -> float:
    """Seconds of a step."""
    for _ in range(WARM_UP):
        step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps


def ours(data: str, views: int, threads: int, steps: int, how: str) -> float:
    """Seconds of a step: "eager", "compiled", in a thread "ahead", or "ceiling", on views that are there already."""
    torch.set_num_threads(threads)
    config, split = config_of(views), Split(torch.load(data))
    opened = dataclasses.replace(synthetic(2, 32), train=split, test=split)
    learner, plan = build(config, make_plan(config, opened))
    learner.to(plan.device)
    optimizer = learner.optimizer(config, plan)
    batches = training_batches(
        opened,
        plan.recipe,
        batch=BATCH,
        seed=0,
        device=plan.device,
        compiled=how == "compiled",
        prefetch=how == "ahead",
    )
    if how == "ceiling":
        first = next(batches)
        random = [torch.randn_like(x) for x in first.views]
        batches = iter(lambda: dataclasses.replace(first, views=random), None)

    def step() -> None:
        batch = next(batches)
        with torch.autocast(plan.device.type, torch.bfloat16, enabled=plan.precision == "bf16-mixed"):
            total, _, _ = learner(batch.views, share=0.5, epoch=1.0)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        learner.remember(0.5)

    return timed(step, steps)


def lightlys(data: str, threads: int, steps: int, by_hand: bool) -> float:
    """Seconds of a step of lightly's example; ``by_hand`` with bfloat16 autocast and channels_last."""
    import torchvision
    from lightly.loss import FroSSLLoss
    from lightly.models.modules.heads import VICRegProjectionHead
    from lightly.transforms.vicreg_transform import VICRegTransform

    torch.set_num_threads(threads)
    images = torch.load(data)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resnet = torchvision.models.resnet18()
    backbone = nn.Sequential(*list(resnet.children())[:-1], nn.Flatten())
    model = nn.Sequential(backbone, VICRegProjectionHead(512, 2048, 2048, 2)).to(device)
    layout = torch.channels_last if by_hand else torch.contiguous_format
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    criterion, optimizer = FroSSLLoss(), torch.optim.SGD(model.parameters(), lr=0.06)
    loader = torch.utils.data.DataLoader(
        Pictures(images, VICRegTransform(input_size=32)),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=min(8, threads),
    )
    batches = iter(loader)

    def step() -> None:
        views = [x.to(device, memory_format=layout) for x in next(batches)]
        with torch.autocast(device.type, torch.bfloat16, enabled=by_hand):
            z = [model(x) for x in views]
        loss = criterion([x.float() for x in z])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return timed(step, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--views", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    jobs: dict[tuple[int, str], tuple[Callable[..., float], tuple[Any, ...]]] = {}
    for name, by_hand in (("lightly", False), ("lightly bf16", True)):
        jobs[2, name] = (lightlys, (given.threads, given.steps, by_hand))
    for views in given.views:
        for how in ("ceiling", "eager", "ahead", "compiled") if has_compiler() else ("ceiling", "eager", "ahead"):
            jobs[views, how] = (ours, (views, given.threads, given.steps, how))
    speeds: dict[tuple[int, str], list[float]] = {job: [] for job in jobs}
    with tempfile.TemporaryDirectory() as directory:
        data = saved(given.data, directory)
        for _ in range(given.rounds):
            for job, (function, args) in jobs.items():
                speeds[job].append(BATCH / in_fresh_process(function, data, *args))
    middle = {job: statistics.median(values) for job, values in speeds.items()}
    rows = []
    for (views, name), speed in middle.items():
        spread = f"{min(speeds[views, name]):,.0f} to {max(speeds[views, name]):,.0f}"
        peers = [f"{speed / middle[2, peer]:.2f}" if views == 2 else "" for peer in GOALS]
        share = f"{speed / middle[views, 'ceiling']:.2f}" if (views, "ceiling") in middle else ""
        rows.append([views, name, f"{speed:,.0f}", spread, *peers, share])
    goals = [
        f"{middle[2, 'eager'] / middle[2, peer]:.2f} times {peer} (goal {goal})"
        for peer, goal in GOALS.items()
        if (2, "eager") in middle
    ]
    goals += [f"{middle[v, 'eager'] / middle[v, 'ceiling']:.2f} of the ceiling at V={v}" for v in given.views]
    text = [
        heading(
            "Training beside lightly",
            "python benchmarks/train.py",
            environment(given.threads, "torchvision", "lightly", "timm"),
            __doc__.split("\n\n", 2)[2].strip(),
        ),
        table(["views", "arm", "images/s", "of the rounds", "of lightly", "of lightly bf16", "of the ceiling"], rows),
        f"Eager: {'; '.join(goals)} (goal {OF_CEILING}).",
    ]
    page = "\n\n".join(text) + "\n"
    print(page)
    if given.out:
        given.out.write_text(page)


if __name__ == "__main__":
    main()
