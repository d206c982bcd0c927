"""What the benchmarks share: processes of their own, arguments, rows in JSON lines, clocks and tables."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

from frossl.core.config import to_plain
from frossl.evals.ranking import half_interval
from frossl.runs.config import Config
from frossl.runs.log import read_rows

P = ParamSpec("P")
T = TypeVar("T")
Row = dict[str, Any]

DATA = Path("docs/results/data")
"""Where rows go if nothing else is said."""


def in_fresh_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of ``function`` in a process that has only imported what training needs."""
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(kind)
    context.set_forkserver_preload(["frossl.train.pretrain"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args, **kwargs).result()


def run_jobs(
    jobs: Iterable[tuple[Row, Callable[..., Row], tuple[Any, ...]]],
    out: Path,
    same: Sequence[str],
    call: Callable[..., Row] = in_fresh_process,
) -> list[Row]:
    """All rows of ``out`` after every (what identifies a row, function, its arguments) has one.

    Jobs whose fields ``same`` a row of ``out`` has already are skipped, unless that row holds an error. ``call`` is
    given the function and its arguments.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    jobs = list(jobs)
    rows = read_rows(out) if out.exists() else []
    done = {tuple(row[name] for name in same) for row in rows if "error" not in row}
    for number, (about, function, args) in enumerate(jobs, 1):
        if tuple(about[name] for name in same) in done:
            continue
        print(f"{number}/{len(jobs)}", *(f"{name} {about[name]}" for name in same), file=sys.stderr, flush=True)
        try:
            row = about | call(function, *args)
        except (ValueError, RuntimeError, MemoryError, BrokenProcessPool) as error:
            row = about | {"error": f"{type(error).__name__}: {error}"}
            print(f"  {row['error']}", file=sys.stderr, flush=True)
        rows.append(row)
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return rows


def write_rows(out: Path, rows: Iterable[Row], about: dict[str, str]) -> None:
    """Writes ``rows`` to ``out``, a line each, with the environment they were measured in."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(row | {"environment": about}) + "\n" for row in rows))


def in_this_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of ``function``, as ``call`` of :func:`run_jobs`."""
    return function(*args, **kwargs)


def parse_arguments(
    parser: argparse.ArgumentParser, file: str, *, threads: int | None = None, required: str | None = None
) -> argparse.Namespace:
    """Parses the arguments of ``parser`` and those of all benchmarks: ``--out``, ``--table`` and ``--threads``.

    Args:
        parser: has the other arguments.
        file: the name of the rows in :data:`DATA`.
        threads: the default of ``--threads``; without it there is no such argument.
        required: an argument that is needed unless ``--table`` is given.
    """
    if threads is not None:
        parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--out", type=Path, default=DATA / file)
    parser.add_argument("--table", action="store_true", help="only print the page of what --out has")
    args = parser.parse_args()
    if required and not args.table and not getattr(args, required):
        parser.error(f"--{required} is needed")
    return args


def read_or_run(
    args: argparse.Namespace,
    jobs: Iterable[tuple[Row, Callable[..., Row], tuple[Any, ...]]],
    same: Sequence[str],
    call: Callable[..., Row] = in_fresh_process,
) -> list[Row]:
    """The rows of ``--out`` with ``--table``, else those of :func:`run_jobs`."""
    if not args.table:
        return run_jobs(jobs, args.out, same, call)
    if not args.out.exists():
        sys.exit(f"{args.out} is not there: run the benchmark without --table first")
    return read_rows(args.out)


def measured_rows(rows: Iterable[Row], same: Sequence[str]) -> list[Row]:
    """The :func:`latest` rows without those that hold an error."""
    return [row for row in latest(rows, same) if "error" not in row]


def latest(rows: Iterable[Row], same: Sequence[str]) -> list[Row]:
    """The last row of each that agree in the fields ``same``: a job that failed may have been done again."""
    return list({tuple(row[name] for name in same): row for row in rows}.values())


def on_device(run: Callable[[], object], device: torch.device) -> float:
    """Seconds from the start of ``run`` to the end of all that it gave ``device`` to do; between two events on CUDA."""
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter() - start
    torch.cuda.synchronize(device)
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    run()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / 1e3


def resident_mib(field: str) -> float:
    """Memory of this process, ``VmRSS`` now or ``VmHWM`` at its peak, in MiB; where there is no /proc, the peak."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would also count the process that started this one
        found = re.search(rf"{field}:\s+(\d+) kB", status.read_text())
        assert found is not None
        return int(found[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def warm_allocator() -> None:
    """Frees 31 MiB once, so that glibc keeps what is freed later, as it does in any process that trains."""
    torch.empty(31 * 2**18)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


CPU = torch.device("cpu")


def interleaved(
    runs: dict[str, Callable[[], object]], rounds: int, warm_up: int = 3, device: torch.device = CPU
) -> dict[str, list[float]]:
    """Seconds of each run in each round, all runs once a round, so that what disturbs one disturbs all."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(warm_up + rounds):
        for name, run in runs.items():
            took = on_device(run, device)
            if number >= warm_up:
                times[name].append(took)
    return times


def environment(threads: int, *packages: str) -> dict[str, str]:
    """What a number depends on besides the code."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", *packages)}
    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "threads": str(threads),
        "python": platform.python_version(),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        **versions,
        "frossl": importlib.metadata.version("frossl"),
        "date": time.strftime("%Y-%m-%d"),
    }


def processor() -> str:
    """Name of the processor."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def heading(title: str, command: str, about: dict[str, str], *notes: str) -> str:
    """The top of a page of results: how they were got, and on what."""
    where = ", ".join(f"{name} {value}" for name, value in about.items() if name not in ("processor", "date"))
    return "\n\n".join([f"# {title}", f"`{command}`", f"{about['processor']}; {where}; {about['date']}.", *notes])


def elsewhere(rows: Sequence[Row]) -> str:
    """A sentence, after a space, on rows whose environment is not that of the first; empty if there are none."""
    counts = Counter(tuple(row["environment"].items()) for row in rows[1:] if _place(row) != _place(rows[0]))
    parts = []
    for items, count in counts.items():
        about = dict(items)
        parts.append(f"{count} of {len(rows)} on {about['processor']}, torch {about['torch']}, {about['date']}")
    return f" Not all rows were measured there: {'; '.join(parts)}." if parts else ""


def _place(row: Row) -> tuple[str, str]:
    return row["environment"]["processor"], row["environment"]["torch"]


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def spread(values: Sequence[float | None], digits: int) -> str:
    """The mean, with half its 95 % interval over seeds where there are several values; a dash where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    half = half_interval(known)
    return f"{statistics.fmean(known):.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")


def seeds_in_words(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"one seed, {seeds[0]}"
    return f"seeds {', '.join(map(str, seeds))} (mean ± 95 % interval over seeds, Student's t)"


def summary(config: Config) -> Row:
    """What of ``config`` a reader of a row wants to know."""
    names = ("method", "seed", "length", "batch", "optimizer", "lr", "weight_decay", "view_recipe", "crop_scale")
    return to_plain({name: getattr(config, name) for name in names} | {"objective": config.objective})
