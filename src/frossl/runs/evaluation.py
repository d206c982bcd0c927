"""``evaluation.json``: what was measured of the encoder of a run, by data."""

from __future__ import annotations

import json
from pathlib import Path

from frossl.core.config import to_plain
from frossl.core.files import write_text
from frossl.data.open import resolve_source
from frossl.evals.suite import Evaluation


def same_source(source: str) -> str:
    """The name of a data set, or the absolute path of anything else: equal for the same images."""
    return resolve_source(source)


def keep_evaluation(path: Path, name: str, new: Evaluation, own: str) -> None:
    """Merges ``new`` into the file under ``name``, or under more of the path of its data if the name is taken.

    The plain name is reserved for the run's ``own`` data. Earlier values are dropped if the number of held-out images
    or the kind of their labels changed, as the data did then.
    """
    kept = json.loads(path.read_text()) if path.exists() else {}
    parts = Path(new.source).parts
    longer = ["/".join(parts[-k:]).replace("//", "/") for k in range(2, len(parts) + 1)]
    keys = [name, *longer, f"data set {name}"]
    if new.source != own and name == Path(own).name:
        keys = keys[1:]
    key = next(key for key in keys if key not in kept or kept[key]["source"] == new.source)
    merged, old = to_plain(new), kept.get(key)
    if old is not None and (old["held_out"], old.get("targets", new.targets)) == (new.held_out, new.targets):
        merged["arms"] = old["arms"] | {arm: old["arms"].get(arm, {}) | values for arm, values in new.arms.items()}
        for arm, answers in old.get("answers", {}).items():
            merged["answers"][arm] = answers | merged["answers"].get(arm, {})
        merged["protocols"] = old["protocols"] | new.protocols
    kept[key] = merged
    write_text(path, json.dumps(kept, indent=2) + "\n")
