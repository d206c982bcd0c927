"""How long do ``frossl embed`` and ``frossl explore`` take for many images, and how large do they become?

    python benchmarks/curation_scale.py --cifar10 FOLDER --encoder FILE [--images 100000] [--rounds 3] [--threads 1]
    python benchmarks/curation_scale.py --table > docs/results/curation-scale.md

Images are those of CIFAR-10, again with shifts until there are enough, as PNG files in a folder. Each step has a
process of its own: decoding and encoding alone, in a plain loop; ``embed``, in turn, as speed varies from minute to
minute; and once ``explore`` of the file that was written.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from common import (
    Row,
    environment,
    heading,
    measured_rows,
    parse_arguments,
    resident_mib,
    run_jobs,
    table,
)
from frossl import embed, explore
from frossl.data import open_data
from frossl.evals.extract import Extractor
from frossl.runs.encoders import load_any_encoder
from frossl.runs.log import read_rows
from frossl.train.embed import BATCH

STEPS = ("decode and encode alone", "embed", "explore")
SAME = ("step", "images", "encoder_title", "threads", "processor", "round")
PER_FOLDER = 1000


def write_images(cifar10: str, count: int, folder: Path) -> None:
    """``count`` PNG files, whose every round through the data is shifted by three more pixels."""
    images = open_data(cifar10).train.images
    assert isinstance(images, torch.Tensor)
    for i in range(count):
        again, which = divmod(i, len(images))
        x = torch.roll(images[which], (3 * again, 3 * again), (1, 2)).permute(1, 2, 0).contiguous().numpy()
        place = folder / f"{i // PER_FOLDER:04}"
        place.mkdir(exist_ok=True)
        Image.fromarray(x).save(place / f"{i:07}.png")


def alone(folder: Path, encoder: str) -> Row:
    """A loop that decodes files and encodes them, and nothing else."""
    net, spec = load_any_encoder(encoder)
    extractor, paths = Extractor(), sorted(folder.rglob("*.png"))
    shift, scale = (torch.tensor(t)[:, None, None] for t in (spec.mean, spec.std))
    start = time.perf_counter()
    for first in range(0, len(paths), BATCH):
        pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths[first : first + BATCH]]
        x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div_(255)
        extractor.encode(net, (x - shift) / scale)
    return {"seconds": time.perf_counter() - start}


def measured(step: str, folder: Path, encoder: str, out: Path, threads: int) -> Row:
    torch.set_num_threads(threads)
    before, start, file = resident_mib("VmRSS"), time.perf_counter(), out / "embeddings.npz"
    row: Row = {}
    if step == STEPS[0]:
        row = alone(folder, encoder)
    elif step == STEPS[1]:
        embed(str(folder), encoder=encoder, out=file, workers=0)
        row = {"bytes": file.stat().st_size}
    else:
        found = explore(str(file), out=out / "page")
        (findings,) = found.findings.values()
        row = {"bytes": found.page.stat().st_size, "lists": findings.seconds, "map": findings.map_kind}
    return {"seconds": time.perf_counter() - start, "peak_mib": resident_mib("VmHWM"), "before_mib": before} | row


def jobs(args: argparse.Namespace, folder: Path, out: Path) -> Iterator[tuple[Row, Any, tuple[Any, ...]]]:
    about = environment(args.threads, "timm", "scikit-learn")
    title = load_any_encoder(args.encoder)[1].title
    last = args.rounds - 1
    for number, step in (*product(range(args.rounds), STEPS[:2]), *((last, step) for step in STEPS[2:])):
        row = {"step": step, "images": args.images, "encoder_title": title, "threads": args.threads, "round": number}
        row |= {"processor": about["processor"], "environment": about}
        yield row, measured, (step, folder, args.encoder, out, args.threads)


def show(rows: list[Row], out: Path) -> str:
    """The page of results."""
    rows = measured_rows(rows, SAME)
    lines, lists = [], []
    for key in dict.fromkeys((row["processor"], row["images"], row["step"]) for row in rows):
        same = [r for r in rows if (r["processor"], r["images"], r["step"]) == key]
        processor, images, step = key
        plain = [r for r in rows if (r["processor"], r["images"], r["step"]) == (processor, images, STEPS[0])]
        alone = {r["round"]: r["seconds"] for r in plain}
        shares = [alone[r["round"]] / r["seconds"] for r in same if r["round"] in alone] if step == STEPS[1] else []
        seconds, peak = (statistics.median(r[name] for r in same) for name in ("seconds", "peak_mib"))
        size = f"{same[-1]['bytes'] / 1e6:.1f}" if "bytes" in same[-1] else ""
        share = f"{statistics.median(shares):.2f} ({', '.join(f'{x:.2f}' for x in shares)})" if shares else ""
        figures = [f"{seconds / 60:.1f}", f"{images / seconds:,.0f}", share, f"{peak:,.0f}", size]
        lines.append([processor, step, f"{images:,}", len(same), *figures])
        for name, took in same[-1].get("lists", {}).items():
            lists.append([name, f"{images:,}", f"{took / 60:.2f}"])
    headings = ["machine", "step", "images", "times", "minutes", "images a second", "of the speed alone"]
    headings += ["peak MiB", "MB written"]
    command = "python benchmarks/curation_scale.py --cifar10 FOLDER --encoder FILE"
    note = f"{rows[-1]['encoder_title']}. PNG files of 32 pixels; explore reads what embed wrote."
    page = [heading("Curation of many images", f"{command}; --table", rows[-1]["environment"], note)]
    page += [table(headings, lines), table(["list", "images", "minutes"], lists)]
    return "\n\n".join([*page, f"Rows: `{out.name}`."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cifar10", default="cifar10", help="name, or folder of Parquet files")
    parser.add_argument("--encoder", help="as for frossl embed")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3, help="of the loop and of embed, in turn")
    args = parse_arguments(parser, "curation-scale.jsonl", threads=1, required="encoder")
    if args.table:
        rows = read_rows(args.out)
    else:
        with tempfile.TemporaryDirectory() as directory:
            folder, out = Path(directory) / "images", Path(directory) / "out"
            folder.mkdir()
            out.mkdir()
            write_images(args.cifar10, args.images, folder)
            rows = run_jobs(jobs(args, folder, out), args.out, SAME)
    print(show(rows, args.out))


if __name__ == "__main__":
    main()
