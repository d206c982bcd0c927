"""Checkpoints: one safetensors file with tensors as tensors and everything else as JSON in its header.

One file cannot be half of a pair, holds no code, and is put in place by a rename.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from frossl.core.files import write_safetensors
from frossl.core.types import UserError

FORMAT = "1"
_NAME = re.compile(r"step-(\d+)\.safetensors")


def save_checkpoint(directory: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Writes ``state`` (nested dictionaries and lists of tensors and JSON values); the newest ``keep`` stay."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    skeleton = _take_apart(state, tensors)
    path = directory / f"step-{step:09d}.safetensors"
    write_safetensors(path, tensors, {"format": FORMAT, "state": json.dumps(skeleton)})
    for old in _by_age(directory)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def newest_checkpoint(run: Path) -> Path:
    """The checkpoint of a run directory with the highest step.

    Raises:
        UserError: there is none.
    """
    found = _by_age(run / "checkpoints")
    if not found:
        raise UserError(f"{run} has no checkpoint in {run / 'checkpoints'}; is it a run directory of frossl?")
    return found[-1]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What :func:`save_checkpoint` was given, tensors on the CPU.

    Raises:
        UserError: the file is damaged, is no checkpoint, or has a format this version does not know.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)
    except (OSError, SafetensorError) as error:
        raise UserError(f"the checkpoint {path} cannot be read: {error}") from None
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} has checkpoint format {metadata.get('format')}; this version of frossl reads {FORMAT}")
    return _put_together(json.loads(metadata["state"]), tensors)


def random_state() -> dict[str, Tensor]:
    """Torch's generators, which only encoders with dropout and the like draw from; views have their own numbers."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Tensor]) -> None:
    """Puts :func:`random_state` back."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _by_age(directory: Path) -> list[Path]:
    found = [(int(m[1]), p) for p in directory.glob("step-*.safetensors") if (m := _NAME.fullmatch(p.name))]
    return [p for _, p in sorted(found)]


def _take_apart(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON with ``{"tensor": name}`` for tensors; dictionaries as pairs, as JSON would turn integer keys to text."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _take_apart(v, tensors)] for key, v in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_take_apart(v, tensors) for v in value]}
    return value


def _put_together(skeleton: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(skeleton, dict):
        return skeleton
    if "tensor" in skeleton:
        return tensors[skeleton["tensor"]]
    if "dict" in skeleton:
        return {k: _put_together(v, tensors) for k, v in skeleton["dict"]}
    return [_put_together(v, tensors) for v in skeleton["list"]]
