"""Views per second on one core beside lightly, torchvision and kornia, all in one run; memory of the input pipeline.

    python benchmarks/views.py [--sizes 32 64 96 224] [--rounds 25] [--table]

The recipe is lightly's VICRegTransform (crop, flip, jitter 0.8, grayscale 0.2, blur 0.5, solarize 0.1, normalise).
Crops are bicubic in this project's arms and bilinear in the others, which is their default. At 32, 64 and 96 pixels
two views of images in memory; at 224 eight views of JPEGs of 400x500, decoded in every arm. Each size has a process
of its own on one core, in which all arms take turns, a batch each; ratios are medians over pairs of neighbours. What
fails in kornia is left out and named. Rows go to ``docs/results/data/views.jsonl``, and what is there is not done
again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import torch
from lightly.transforms import VICRegTransform
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from common import (
    Row,
    environment,
    heading,
    interleaved,
    measured_rows,
    parse_arguments,
    read_or_run,
    resident_mib,
    table,
)
from frossl.commands.bench import noise
from frossl.core.machine import has_compiler, keep_freed_pages
from frossl.data.decode import decode
from frossl.data.loader import training_batches
from frossl.data.reading import Reading
from frossl.data.types import Split
from frossl.views.recipes import VIEWS, Recipe, with_size, with_views

SAME = ("what", "size")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEAST = {"compiled": {32: 8.0, 64: 4.0, 96: 3.0, 224: 2.2}, "eager": {32: 5.0, 64: 1.0, 96: 1.0, 224: 1.0}}
"""What the views should reach, in units of lightly's."""
FROM_JPEG = 200
"""From this size on views come from files."""
JPEG_SIZE = (400, 500)

Chunk = Callable[[], int]
"""Makes some views, always as many, and says how many."""


class Jpegs:
    """Encoded images in memory, decoded when asked for."""

    def __init__(self, encoded: list[bytes]) -> None:
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int, /) -> Tensor:
        return decode(self.encoded[index], Reading(3))


def pictures(count: int, height: int, width: int) -> Tensor:
    """Smooth uint8 images with a little noise: JPEG finds in them about what it finds in photographs."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(count, 3, height // 8, width // 8, generator=generator)
    large = torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)
    noise = torch.rand(count, 3, height, width, generator=generator)
    return (230 * large + 25 * noise).byte().contiguous(memory_format=torch.channels_last)


def jpegs(count: int) -> list[bytes]:
    def encode(image: np.ndarray) -> bytes:
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=90)
        return file.getvalue()

    return [encode(x.permute(1, 2, 0).numpy()) for x in pictures(count, *JPEG_SIZE)]


def recipe_for(size: int, views: int) -> Recipe:
    return with_views(with_size(VIEWS["imagenet-vicreg"], size), views)


def ours(split: Split, size: int, views: int, batch: int, compiled: bool) -> Chunk:
    data = replace(noise(2, 8), train=split, mean=MEAN, std=STD)
    batches = training_batches(data, recipe_for(size, views), batch=batch, seed=0, compiled=compiled)
    return lambda: sum(x.shape[0] * x.shape[1] for x in next(batches).views)


def one_by_one(open_image: Callable[[int], object], images: int, batch: int, views: int, transform) -> Chunk:
    """As a DataLoader does it: image by image, then stacked."""
    place = 0

    def chunk() -> int:
        nonlocal place
        made = []
        for _ in range(batch):
            image = open_image(place % images)
            made += [transform(image) for _ in range(views)]
            place += 1
        return len(torch.stack(made))

    return chunk


def torchvision_transform(size: int) -> v2.Transform:
    jitter = v2.ColorJitter(0.4, 0.4, 0.2, 0.1)
    steps = [
        v2.RandomResizedCrop(size, scale=(0.08, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([jitter], p=0.8),
        v2.RandomGrayscale(0.2),
        v2.RandomApply([v2.GaussianBlur(13, (0.1, 2.0))], p=0.5),
        v2.RandomSolarize(128, 0.1),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ]
    return v2.Compose(steps)


def kornia_chunk(load: Callable[[], Tensor], size: int, views: int) -> Chunk:
    """As much of the recipe as runs: operations that fail here are left out one by one, and named."""
    import kornia.augmentation as ka

    wanted = {
        "crop": ka.RandomResizedCrop((size, size), scale=(0.08, 1.0)),
        "flip": ka.RandomHorizontalFlip(p=0.5),
        "jitter": ka.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
        "grayscale": ka.RandomGrayscale(p=0.2),
        "blur": ka.RandomGaussianBlur((13, 13), (0.1, 2.0), p=0.5),
        "solarize": ka.RandomSolarize(0.0, 0.0, p=0.1),
        "normalise": ka.Normalize(MEAN, STD),
    }
    runs, failed = [], []
    for name, operation in wanted.items():
        try:
            for _ in range(3):
                operation(torch.rand(8, 3, size, size))
            runs.append(operation)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            failed.append(f"{name} fails ({type(error).__name__})")
    pipeline = torch.nn.Sequential(*runs)

    def chunk() -> int:
        x = load().float().div(255)
        return sum(len(pipeline(x)) for _ in range(views))

    chunk.note = ", ".join(failed)  # type: ignore[attr-defined]
    return chunk


def arms_in_memory(size: int, batch: int = 128, views: int = 2) -> dict[str, Chunk]:
    x = pictures(512, size, size)
    arrays = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in x]
    lightly = VICRegTransform(input_size=size).transforms[0]
    arms = {
        "lightly": one_by_one(lambda i: Image.fromarray(arrays[i]), len(x), batch, views, lightly),
        "torchvision": one_by_one(lambda i: x[i], len(x), batch, views, torchvision_transform(size)),
        "eager": ours(Split(x), size, views, batch, compiled=False),
    }
    return _with_optional(arms, lambda: ours(Split(x), size, views, batch, True), lambda: x[:batch], size, views)


def arms_from_jpeg(size: int, batch: int = 8, views: int = 8) -> dict[str, Chunk]:
    encoded = jpegs(32)
    lightly = VICRegTransform(input_size=size).transforms[0]

    def as_lightly_opens(i: int) -> Image.Image:
        return Image.open(BytesIO(encoded[i])).convert("RGB")

    arms = {
        "lightly": one_by_one(as_lightly_opens, len(encoded), batch, views, lightly),
        "torchvision": one_by_one(
            lambda i: decode(encoded[i], Reading(3)), 32, batch, views, torchvision_transform(size)
        ),
        "eager": ours(Split(Jpegs(encoded)), size, views, batch, compiled=False),
    }

    def load() -> Tensor:
        return torch.stack([decode(e, Reading(3)) for e in encoded[:batch]])

    return _with_optional(
        arms, lambda: ours(Split(Jpegs(encoded)), size, views, batch, compiled=True), load, size, views
    )


def _with_optional(
    arms: dict[str, Chunk], compiled: Callable[[], Chunk], load: Callable[[], Tensor], size: int, views: int
) -> dict[str, Chunk]:
    if has_compiler():
        arms["compiled"] = compiled()
    with suppress(ImportError):
        arms["kornia"] = kornia_chunk(load, size, views)
    return arms


def speed(size: int, rounds: int) -> Row:
    """Views per second of every arm, in units of lightly's too, and seconds of its first batch, which may compile."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    keep_freed_pages()
    arms = arms_from_jpeg(size) if size >= FROM_JPEG else arms_in_memory(size)
    first, views = {}, {}
    for name, chunk in arms.items():
        start = time.perf_counter()
        views[name] = chunk()
        first[name] = time.perf_counter() - start
    times = interleaved(arms, rounds, warm_up=2)
    found = {}
    for name, took in times.items():
        ratios = [views[name] / a / (views["lightly"] / b) for a, b in zip(took, times["lightly"], strict=True)]
        found[name] = {
            "views_s": views[name] / statistics.median(took),
            "ratio": statistics.median(ratios),
            "quartiles": statistics.quantiles(ratios, n=4)[::2],
            "first_s": first[name],
            "note": getattr(arms[name], "note", ""),
        }
    return {"arms": found}


def memory(size: int, views: int, batch: int) -> Row:
    """MiB above the data set while batches are made, and MiB of one batch of views."""
    torch.set_num_threads(2)
    data = noise(2 * batch, size)
    batches = training_batches(data, recipe_for(size, views), batch=batch, seed=0)
    before = resident_mib("VmRSS")
    for _ in range(3):
        made = next(batches)
    return {"peak_mib": resident_mib("VmHWM") - before, "views_mib": sum(x.nbytes for x in made.views) / 2**20}


def jobs(args: argparse.Namespace) -> Iterator[tuple[Row, Callable[..., Row], tuple[Any, ...]]]:
    about = environment(1, "torchvision", "lightly", "pillow") | {"compiler": "yes" if has_compiler() else "no"}
    for size in args.sizes:
        yield {"what": "speed", "size": size, "rounds": args.rounds, "environment": about}, speed, (size, args.rounds)
    yield {"what": "memory", "size": 96, "views": 8, "batch": 256, "environment": about}, memory, (96, 8, 256)


def show(rows: list[Row]) -> str:
    rows = measured_rows(rows, SAME)
    lines, compiling, notes = [], [], set()
    for row in sorted((row for row in rows if row["what"] == "speed"), key=lambda row: row["size"]):
        for name, arm in row["arms"].items():
            least = LEAST.get(name, {}).get(row["size"])
            goal = "" if least is None else f"{least:.1f}: {'reached' if arm['ratio'] >= least else 'not reached'}"
            middle = " to ".join(f"{ratio:.2f}" for ratio in arm["quartiles"])
            lines.append([row["size"], name, f"{arm['views_s']:,.0f}", f"{arm['ratio']:.2f}", middle, goal])
            if arm["note"]:
                notes.add(f"{name}: {arm['note']}; left out there.")
        if "compiled" in row["arms"]:
            compiling.append(f"{row['arms']['compiled']['first_s']:.0f} s at {row['size']} px")
    text = [
        heading(
            "Views per second on one core",
            "python benchmarks/views.py; --table",
            rows[-1]["environment"],
            __doc__.split("\n\n", 2)[2].strip(),
        ),
        table(["pixels", "arm", "views/s", "of lightly's", "middle half", "goal"], lines),
        f"Compiling and the first batch, not counted above: {', '.join(compiling) or 'no C++ compiler here'}.",
        *sorted(notes),
    ]
    for row in rows:
        if row["what"] == "memory":
            text.append(
                f"Peak memory of the input pipeline, {row['views']} views of {row['batch']} images of {row['size']} px "
                f"on two threads: {row['peak_mib']:.0f} MiB over the data set, of which one batch of views in "
                f"float32 is {row['views_mib']:.0f} MiB."
            )
    return "\n\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 96, 224])
    parser.add_argument("--rounds", type=int, default=25)
    args = parse_arguments(parser, "views.jsonl")
    print(show(read_or_run(args, jobs(args), SAME)))


if __name__ == "__main__":
    main()
