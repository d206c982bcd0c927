"""The tables of a report: accuracies, time, settings."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from frossl.evals import noun, scores
from frossl.evals.suite import ARMS, Evaluation
from frossl.nn.encoder import encoder_title
from frossl.report import figures
from frossl.report.arms import arms_of, augmentation_tables, evaluation_table
from frossl.report.table import Cell, Table
from frossl.report.terminal import duration
from frossl.runs.record import Record, Row


def accuracy_tables(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A table for each data set that any run was evaluated on; data of one name from two places are two."""
    found: dict[tuple[str, str], list[tuple[Record, Evaluation]]] = {}
    for record in records:
        for name, evaluation in record.evaluations.items():
            found.setdefault((name, evaluation.source), []).append((record, evaluation))
    names = [name for name, _ in found]
    own = {Path(r.config["data"]).name for r in records}
    return [
        accuracy_table(source if names.count(name) > 1 and source else name, [(r.name, e) for r, e in of])
        | {"transfer": name not in own}
        for (name, source), of in found.items()
    ]


def accuracy_table(data: str, evaluations: Sequence[tuple[str, Evaluation]]) -> dict[str, Any]:
    """The values of every arm of every run on ``data``, with protocols and charts."""
    arms = arms_of(evaluations)
    return {
        "data": data,
        "table": evaluation_table(arms),
        "what": noun(name for name in scores() if any(name in arm.values for arm in arms)),
        "held_out": sorted({e.held_out for _, e in evaluations}),
        "protocols": list(dict.fromkeys(p for _, e in evaluations for p in e.protocols.values())),
        "arms": {name: ARMS[name] for name in dict.fromkeys(a.name for a in arms) if name in ARMS},
        "augmentations": augmentation_tables(arms),
        "plot": figures.accuracy_figure(arms),
    }


def time_table(record: Record) -> dict[str, Any] | None:
    """Speed and where the time went, from the rows of the log; None for a run with hardly any.

    The time that a stretch of steps took beyond the median step is the monitor's if it ran in that stretch.
    """
    stretches = _stretches(record)
    if not stretches:
        return None
    step = statistics.median(seconds / steps for steps, seconds, _ in stretches)
    pauses = {True: 0.0, False: 0.0}
    for steps, seconds, watched in stretches:
        pauses[watched] += max(0.0, seconds - steps * step)
    total = record.end["seconds"]
    spent = {
        "training steps": max(0.0, total - sum(pauses.values())),
        "monitor: kNN, probe, rank": pauses[True],
        "other": pauses[False],
    }
    speed = record.about["batch"] / step
    parts = [{"name": k, "time": duration(s), "share": s / max(total, 1e-9)} for k, s in spent.items()]
    return {"images": speed, "views": record.views * speed, "step": step, "total": duration(total), "parts": parts}


def _stretches(record: Record) -> list[tuple[int, float, bool]]:
    """Steps, seconds, and whether the monitor ran, from each train row to the next and to the end.

    The row of the monitor comes after the train row of its step, so its time belongs to the stretch after that.
    """
    monitored = [row["step"] for row in record.monitor]
    rows: list[Row] = [*record.train, record.end] if record.train else []
    return [
        (b["step"] - a["step"], b["seconds"] - a["seconds"], any(a["step"] <= at < b["step"] for at in monitored))
        for a, b in pairwise(rows)
        if b["step"] > a["step"] and b["seconds"] > a["seconds"]
    ]


def settings(records: Mapping[str, Record], *, differing: bool = False) -> Table:
    """Every entry of ``config.json`` with its value in each of ``records``, or those that differ, without names."""
    flat = [_flatten(record.about) for record in records.values()]
    rows = {key: [f.get(key, "–") for f in flat] for f in flat for key in f}
    if differing:
        rows = {k: values for k, values in rows.items() if len(set(values)) > 1 and k != "config.name"}
        rows = rows or {"nowhere": []}
    return Table("", ["setting", *records], [[Cell(text) for text in (k, *values)] for k, values in rows.items()])


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, list) and any(isinstance(x, dict) for x in value):
        value = {str(i + 1): x for i, x in enumerate(value)}
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _flatten(inner, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): value if isinstance(value, str) else json.dumps(value)}


def summary(record: Record) -> list[str]:
    """The settings of a run, in a few words each."""
    config, encoder, (train, test) = record.config, record.about["encoder"], record.about["images"]
    title = encoder_title(encoder["backbone"], encoder.get("stem", "imagenet"), encoder.get("options", {}))
    extensions = record.about.get("extensions", ())
    views = " + ".join(f"{v['count']} of {v['size']}×{v['size']}" for v in record.about["views"])
    return [
        config["data"],
        f"{train:,} training and {test:,} held-out images",
        config["method"],
        f"{title}, {encoder['features']} features",
        f"views {views}",
        f"batch {record.about['batch']}",
        ", ".join([config["length"], *(f"{e['before']} up to step {e['step']:,}" for e in extensions)]),
        f"seed {config['seed']}",
    ]
