"""Millions of images: memory of a process and of its workers, seconds to open and to order them; no files needed.

Names are made up, and each stands for one small JPEG in memory. ``--form lists`` keeps names in a list of strings and
reads every image at the start; ``arrays`` is what frossl does, with ``--check on-read``.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from common import DATA, Row, environment, heading, in_fresh_process, latest, resident_mib, run_jobs, seconds, table
from frossl.data.build import build
from frossl.data.folder import Files, list_images
from frossl.data.loader import epoch_order, training_batches
from frossl.data.options import Opening
from frossl.data.sources import Encoded
from frossl.data.targets import number_labels
from frossl.data.types import Dataset
from frossl.views.recipes import View

SAME = ("form", "images", "start")
CLASSES, BATCHES, BATCH = 1000, 300, 64


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


class MadeUp(Files):
    """Names without files: each image is the same."""

    content = jpeg()

    def __getitem__(self, index: int, /) -> bytes:
        super().__getitem__(index)
        return self.content


def names(images: int) -> Iterator[str]:
    """Of ImageNet's length."""
    return (f"train/n{i * CLASSES // images:08d}/n{i * CLASSES // images:08d}_{i}.JPEG" for i in range(images))


def kept(form: str, images: int) -> Sequence[str]:
    if form == "lists":
        return list(names(images))
    from frossl.data.names import Names  # here, so that lists can be measured on sources that lack it

    return Names(names(images))


def memory_mib(process: int | str, field: str) -> float:
    """Of one process: ``Rss``, ``Pss`` (its share of what several hold), or ``Private_Dirty`` (no other has it)."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 2**10


def opened(form: str, images: int) -> tuple[Dataset, Row]:
    before, began = memory_mib("self", "Rss"), time.perf_counter()
    files = MadeUp("images", kept(form, images), "train/")  # type: ignore[arg-type]
    listed, listed_mib = time.perf_counter() - began, memory_mib("self", "Rss") - before
    labels, classes = number_labels(files.folders())
    check: dict[str, Any] = {} if form == "lists" else {"check": "on-read"}
    data = build("many", "names", [Encoded(files, labels)], classes, Opening(memory_limit=0, workers=1, **check))
    took = time.perf_counter() - began - listed
    peak = resident_mib("VmHWM") - before
    about = {"names_s": listed, "names_mib": listed_mib, "open_s": took, "open_peak_mib": peak}
    return data, about | {"open_mib": memory_mib("self", "Rss") - before}


def measured(form: str, images: int, start: str) -> Row:
    """What one process and its one worker need for so many images."""
    torch.set_num_threads(1)
    data, row = opened(form, images)
    multiprocessing.set_start_method(start, force=True)
    others = multiprocessing.active_children()
    began = time.perf_counter()
    batches = training_batches(data, (View(size=8),), batch=BATCH, seed=0, workers=1)
    next(batches)
    row["first_batch_s"] = time.perf_counter() - began
    (worker,) = (child for child in multiprocessing.active_children() if child not in others)
    for _ in range(BATCHES):
        next(batches)
    for name, field in (("rss", "Rss"), ("pss", "Pss"), ("own", "Private_Dirty")):
        row[f"worker_{name}_mib"], row[f"main_{name}_mib"] = memory_mib(worker.pid, field), memory_mib("self", field)
    row["order_s"] = seconds(lambda: epoch_order(images, 0, 1))
    return row


def listed(form: str, images: int, start: str) -> Row:
    """Seconds to list as many empty files on the disk of the temporary directory, twice; the second time is told."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names(images):
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        times = [seconds(lambda: list_images(Path(folder))) for _ in range(2)]
    return {"list_s": times[1]}


def page(rows: list[Row]) -> str:
    columns = ["images", "form", "names, s", "names, MiB", "open, s", "open, MiB", "peak", "order of an epoch, s"]
    columns += ["workers", "first batch, s", "worker PSS, MiB", "of it its own"]
    numbers = ("names_s", "names_mib", "open_s", "open_mib", "open_peak_mib", "order_s")
    parts = []
    for row in rows:
        if "error" not in row and row["start"] != "list":
            cells = [f"{row[name]:,.1f}" if name.endswith("_s") else f"{row[name]:,.0f}" for name in numbers]
            worker = [row["start"], f"{row['first_batch_s']:.1f}", f"{row['worker_pss_mib']:,.0f}"]
            parts.append([f"{row['images']:,}", row["form"], *cells, *worker, f"{row['worker_own_mib']:,.0f}"])
    listings = [
        f"{row['images']:,} empty files in {CLASSES:,} folders are listed in {row['list_s']:.1f} s ({row['form']})."
        for row in rows
        if row["start"] == "list"
    ]
    note = (
        f"Made-up names of ImageNet's length, {CLASSES:,} classes, one small JPEG for all. lists: a list of strings, "
        "and all images are read at the start (commit 304a7b5); arrays: what frossl does, with --check on-read, which "
        "reads 1,000 images and those held out. Memory is what is added to a process that has imported frossl, for a "
        f"worker all it has, after {BATCHES} batches of {BATCH}: its share (PSS), and what no other process shares."
    )
    about = heading("Many images", "python benchmarks/many_images.py", environment(1), note, *listings)
    return f"{about}\n\n{table(columns, parts)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--form", nargs="+", default=["arrays"], choices=("lists", "arrays"))
    parser.add_argument("--start", nargs="+", default=["fork", "spawn"], choices=("fork", "spawn", "list"))
    parser.add_argument("--out", type=Path, default=DATA / "many-images.jsonl")
    args = parser.parse_args()
    jobs = []
    for images in args.images:
        for form in args.form:
            for start in args.start:
                work = listed if start == "list" else measured
                jobs.append((dict(zip(SAME, (form, images, start), strict=True)), work, (form, images, start)))
    rows = latest(run_jobs(jobs, args.out, SAME, in_fresh_process), SAME)
    print(page(sorted(rows, key=lambda row: (row["images"], row["form"], row["start"]))))


if __name__ == "__main__":
    main()
