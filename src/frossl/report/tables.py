"""The tables of a report: accuracies, time, settings."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from frossl.evals.robustness import under_augmentation
from frossl.evals.suite import ARMS, HEADINGS, Evaluation
from frossl.nn.encoder import encoder_title
from frossl.report import figures
from frossl.report.terminal import duration
from frossl.report.words import ACCURACIES, Arm, arms_of, minus
from frossl.runs.record import Record, Row


def accuracy_tables(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A table for each data set that any run was evaluated on; images of one name from two places are two."""
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
    """The values of every arm of every run on ``data``; accuracies with their intervals."""
    arms = arms_of(evaluations)
    columns = [name for name in HEADINGS if any(name in arm.values for arm in arms)]
    best = {name: max(a.values[name] for a in arms if name in a.values) for name in columns if name in ACCURACIES}
    return {
        "data": data,
        "columns": [ACCURACIES.get(name) or figures.TITLES.get(name) or HEADINGS[name] for name in columns],
        "rows": [{"run": a.run, "arm": a.name, "cells": [_cell(n, a, best.get(n)) for n in columns]} for a in arms],
        "several": len(evaluations) > 1,
        "held_out": sorted({e.held_out for _, e in evaluations}),
        "protocols": list(dict.fromkeys(p for _, e in evaluations for p in e.protocols.values())),
        "arms": {name: ARMS[name] for name in dict.fromkeys(a.name for a in arms) if name in ARMS},
        "augmentations": augmentation_table(arms, len(evaluations) > 1),
        "plot": figures.accuracy_figure(arms),
    }


def augmentation_table(arms: Sequence[Arm], several: bool) -> dict[str, Any] | None:
    """kNN and cosine similarity under each augmentation, a column for each arm; None if they were not measured."""
    columns = {f"{a.run} · {a.name}" if several else a.name: a.values for a in arms}
    rows = under_augmentation({name: values for name, values in columns.items() if "cosine_under_flip" in values})
    if not rows:
        return None
    return {
        "columns": list(rows[0][1]),
        "rows": [
            {"words": words, "cells": [_figure(c, kind) for c in cells.values() for kind in ("knn", "cosine")]}
            for words, cells in rows
        ],
    }


def _figure(values: dict[str, float], kind: str) -> dict[str, Any]:
    if kind not in values:
        return {"value": "–"}
    margin = (values[f"{kind}_high"] - values[f"{kind}_low"]) / 2
    return {"value": minus(f"{values[kind]:.3f}"), "margin": f"±{margin:.3f}"}


def _cell(name: str, arm: Arm, best: float | None) -> dict[str, Any]:
    value = arm.values.get(name)
    if value is None:
        return {"value": "–"}
    digits = 1 if "rank" in name else 3
    has_interval = name in ACCURACIES or f"{name}_low" in arm.values
    interval = f"±{arm.margin(name):.{digits}f}" if has_interval else ""
    return {"value": minus(f"{value:.{digits}f}"), "margin": interval, "best": value == best}


def time_table(record: Record) -> dict[str, Any] | None:
    """Speed and where the time went, as far as the rows of the log tell; None for a run with hardly any.

    What a stretch of steps took beyond the median step goes to the monitor if that looked at the encoder in it.
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
    """Steps, seconds, and whether the monitor looked, from each train row to the next and to the end.

    The row of the monitor comes after the train row of its step, so its time belongs to what follows that.
    """
    looks = [row["step"] for row in record.monitor]
    rows: list[Row] = [*record.train, record.end] if record.train else []
    return [
        (b["step"] - a["step"], b["seconds"] - a["seconds"], any(a["step"] <= at < b["step"] for at in looks))
        for a, b in pairwise(rows)
        if b["step"] > a["step"] and b["seconds"] > a["seconds"]
    ]


def settings(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Every entry of ``config.json`` with its value for each run, and whether they differ in it."""
    flat = [_flatten(r.about) for r in records]
    rows = [(key, [f.get(key, "–") for f in flat]) for key in dict.fromkeys(key for f in flat for key in f)]
    return [{"key": key, "values": values, "differs": len(set(values)) > 1} for key, values in rows]


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, list) and any(isinstance(x, dict) for x in value):
        value = {str(i + 1): x for i, x in enumerate(value)}
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _flatten(inner, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): value if isinstance(value, str) else json.dumps(value)}


def summary(record: Record) -> list[str]:
    """What a run was, in a few words each."""
    config, encoder, (train, test) = record.config, record.about["encoder"], record.about["images"]
    title = encoder_title(encoder["backbone"], encoder.get("stem", "imagenet"), encoder.get("options", {}))
    views = " + ".join(f"{v['count']} of {v['size']}×{v['size']}" for v in record.about["views"])
    return [
        config["data"],
        f"{train:,} training and {test:,} held-out images",
        config["method"],
        f"{title}, {encoder['features']} features",
        f"views {views}",
        f"batch {record.about['batch']}",
        config["length"],
        f"seed {config['seed']}",
    ]
