"""Finished runs of a comparison, written down by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

VIEWS = {"scale": [0.2, 1.0], "size": 32}


def write_run(
    out: Path, arm: str, seed: int, accuracy: float, budget: str = "2ep", views: int = 2, looks: int = 4
) -> dict:
    """A finished run whose kNN climbs straight to ``accuracy`` in 2 epochs of 1,000 images, 10 seconds each look."""
    name = re.sub(r"[^\w.]+", "-", f"{arm} {budget} seed{seed}")
    run = out / name
    run.mkdir(parents=True)
    config = {"data": "things", "method": arm.partition(":")[0], "objective": {}, "seed": seed, "length": budget}
    about = {"frossl": "0", "config": config, "views": [VIEWS | {"count": views}], "batch": 100, "images": [1000, 500]}
    (run / "config.json").write_text(json.dumps(about | {"encoder": {"backbone": "resnet18", "features": 64}}))
    rows = []
    for i in range(1, looks + 1):
        where = {"step": 5 * i, "epoch": i / 2, "images": 500 * i, "seconds": 10.0 * i}
        rows += [{"kind": "train", **where, "loss": 1.0}]
        rows += [{"kind": "monitor", **where, "knn": accuracy * i / looks, "probe": accuracy * i / looks}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {"knn": accuracy - 0.02, "linear": accuracy, "effective_rank": 100 * accuracy, "alignment": -accuracy}
    controls = {"untrained": {"knn": 0.2, "linear": 0.25}, "raw pixels": {"knn": 0.3, "linear": 0.3}}
    evaluation = {"arms": {"pretrained": own, **controls}, "protocols": {"knn": "kNN, k = 20"}, "held_out": 500}
    (run / "evaluation.json").write_text(json.dumps({"things": evaluation}))
    (run / "outcome.json").write_text(json.dumps({"state": "trained", "evaluated": ["knn"], "peak_memory": 2**30}))
    return {"name": name, "arm": arm, "budget": budget, "seed": seed, "config": config}


def write_plan(out: Path, runs: list[dict]) -> Path:
    about = {"frossl": "0", "machine": {"processor": "a <processor>"}, "command": "frossl compare things", "runs": runs}
    (out / "comparison.json").write_text(json.dumps(about))
    return out
