"""Runs killed at random moments, and runs stopped within an epoch, against the run that nobody stopped.

    python benchmarks/stops.py [--kills 60] [--table]

Small runs of 24 steps on 38 images, by one process and by two gloo ranks. Kills: a save every 3 steps; SIGKILL hits all
ranks or one of them when a random part of the processor time of such a run is spent, its start and its saves included;
methods take turns. Stops: after each of the 23 steps, with and without decoding processes. World: one process to step
12, two ranks to step 36, one to step 48, with a death each time. Linux only. Rows go to
``docs/results/data/stops.jsonl``, and what is there is not done again.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from common import (
    Row,
    environment,
    heading,
    in_this_process,
    measured_rows,
    parse_arguments,
    run_jobs,
    table,
)
from frossl.runs.log import read_rows

for _room in ("", "train"):
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / _room))
from stop_runs import TRAINED, another_world, killed_once, stopped_midway, whole_run  # noqa: E402
from test_train_loop import folder_of_images  # noqa: E402

SAME = ("study", "ranks", "workers", "number")
SIZES = ((16, 16), (20, 14), (33, 40))
ENCODERS = {
    "resnet18 of 8 channels, batch norm over all ranks": {},
    "vit of 24 channels, without batch norm": {
        "backbone": "vit_tiny_patch16_224",
        "backbone_options": '{"embed_dim": 24, "depth": 1, "num_heads": 2}',
        "size": 16,
    },
}


def jobs(kills: int, root: Path) -> Iterator[tuple[Row, Callable[..., Row], tuple[Any, ...]]]:
    about = {"environment": environment(1)}
    same_size, mixed = folder_of_images(root / "same"), folder_of_images(root / "mixed", sizes=SIZES)

    @cache
    def whole(out: Path, images: Path, ranks: int, seen: bool, **changes: Any) -> float:
        return whole_run(images, out, "whole", ranks, seen, **changes)

    def kill(number: int, method: str, ranks: int, out: Path) -> Row:
        work = whole(out, same_size, ranks, False, method=method)
        return {"whole_seconds": work, **killed_once(same_size, out, number, method, ranks, out / "whole", work)}

    def stop(step: int, workers: int, ranks: int, out: Path) -> Row:
        whole(out, mixed, ranks, True, workers=workers, size=16)
        return stopped_midway(mixed, out, step, workers, ranks, out / "whole")

    def world(encoder: str, out: Path) -> Row:
        changes = ENCODERS[encoder] | {"length": "48it"}
        whole(out, same_size, 1, True, **changes)
        return another_world(same_size, out, out / "whole", **changes)

    for ranks in (1, 2):
        for number in range(kills):
            method = TRAINED[number % len(TRAINED)]
            row = {"study": "kill", "ranks": ranks, "workers": 0, "number": number, "method": method}
            yield row | about, kill, (number, method, ranks, root / f"kill-{method}-{ranks}")
        for workers in (0, 2):
            for step in range(1, 24):
                row = {"study": "stop", "ranks": ranks, "workers": workers, "number": step}
                yield row | about, stop, (step, workers, ranks, root / f"stop-{workers}-{ranks}")
    for number, encoder in enumerate(ENCODERS):
        row = {"study": "world", "ranks": 2, "workers": 0, "number": number, "encoder": encoder}
        yield row | about, world, (encoder, root / f"world-{number}")


def show(rows: list[Row]) -> str:
    rows = measured_rows(rows, SAME)
    kills, stops, worlds = ([row for row in rows if row["study"] == study] for study in ("kill", "stop", "world"))
    killed = sum(-signal.SIGKILL in row["codes"] for row in kills)
    notes = [
        f"Runs of 24 steps (the last table: 48) of batch 8 on 38 images, encoders of 8 channels. {killed} kills of "
        f"{len({row['method'] for row in kills})} methods; the files were in memory. Bit for bit the same: losses of "
        "all steps and all weights of the encoder, compared with the run that nobody stopped.",
    ]
    parts = [heading("Runs that were stopped", "python benchmarks/stops.py; --table", rows[-1]["environment"], *notes)]
    for title, found, columns, line in (
        (
            "Killed (SIGKILL) at random moments",
            kills,
            ["killed", "went on by itself", "bit for bit the same", "before the first save", "lost"],
            kill_line,
        ),
        (
            "Stopped after each of 23 steps",
            stops,
            ["stopped", "went on by itself", "bit for bit the same", "batches repeated", "missed", "with other views"],
            stop_line,
        ),
    ):
        settings = dict.fromkeys((row["ranks"], row["workers"]) for row in found)
        lines = [
            [ranks, workers, *line([row for row in found if (row["ranks"], row["workers"]) == (ranks, workers)])]
            for ranks, workers in settings
        ]
        parts += [f"## {title}", table(["ranks", "decoding processes", *columns], lines)]
    parts.append(
        "Before the first save: the run began again in its directory or, killed before it had one, by the same command "
        "under another name. A few draws of processor time are longer than that run then took; those were not killed. "
        "Lost: most steps in the log after the last save, which were taken again."
    )
    lines = [
        [row["encoder"], row["steps"], "yes" if row["same_images"] else "no", row["within_1e-6"]]
        + [f"{row[key]:.1e}" for key in ("loss_error", "terms_error")]
        for row in worlds
    ]
    columns = ["encoder", "steps", "same images in each batch", "steps before the loss is 1e-6 off", "most", "of terms"]
    note = (
        "float32 and AdamW at their defaults; errors relative to the loss of the run of one process, the last column "
        "to the sum of the sizes of its terms, of which the loss is a small difference."
    )
    parts += ["## One process, two ranks, one process", table(columns, lines), note] if worlds else []
    return "\n\n".join(parts)


def kill_line(rows: list[Row]) -> list[object]:
    killed = sum(-signal.SIGKILL in row["codes"] for row in rows)
    early = sum(row["saved_step"] == 0 for row in rows)
    lost = max(row["lost_steps"] for row in rows)
    return [killed, *outcomes(rows), early, f"{lost} steps"]


def stop_line(rows: list[Row]) -> list[object]:
    died = sum(row["died"] == [9] * row["ranks"] for row in rows)
    resumed = [row | {"resumed": not any(row["codes"])} for row in rows]
    return [died, *outcomes(resumed), *(sum(row[key] for row in rows) for key in ("repeated", "missed", "differing"))]


def outcomes(rows: list[Row]) -> list[str]:
    return [f"{sum(row[key] for row in rows)} of {len(rows)}" for key in ("resumed", "same")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=60)
    args = parse_arguments(parser, "stops.jsonl")
    if args.table:
        rows = read_rows(args.out)
    else:
        with tempfile.TemporaryDirectory() as root:
            # No processes of their own: each run is some already, and this one must not train before it forks.
            rows = run_jobs(jobs(args.kills, Path(root)), args.out, SAME, call=in_this_process)
    print(show(rows))


if __name__ == "__main__":
    main()
