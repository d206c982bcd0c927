"""Checkpoints: one safetensors file of tensors; its header has everything else as JSON, and a checksum.

One file cannot be half of a pair, holds no code, and is put in place by a rename. :mod:`frossl.train.state` defines the
content.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from frossl.core.device import has_context
from frossl.core.files import SEAL, DamagedError, flush_directory, read_sealed, write_atomically, write_sealed
from frossl.core.types import UserError

FORMAT = "2"
BEST = "best.safetensors"


def save_checkpoint(directory: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Writes ``state``, nested dictionaries and lists of tensors and JSON values, and keeps the newest ``keep`` files.

    Raises:
        UserError: a disk error; the checkpoints that were there still are.
    """
    if not directory.exists():
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make {directory}: {error.strerror or error}") from None
        flush_directory(directory.parent)
    tensors: dict[str, Tensor] = {}
    skeleton = _to_json(state, tensors)
    path = directory / f"step-{step:09d}.safetensors"
    write_sealed(path, tensors, {"format": FORMAT, "state": json.dumps(skeleton)})
    for old in [*_by_age(directory)[:-keep], *directory.glob(".*.partial")]:
        with suppress(OSError):  # the next save tries again
            old.unlink(missing_ok=True)
    return path


def keep_as_best(path: Path) -> None:
    """Puts ``best.safetensors`` beside the checkpoint at ``path``: the same file where the file system has links."""

    def link(temporary: Path) -> None:
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)

    write_atomically(path.with_name(BEST), link)


def newest_checkpoint(run: Path) -> Path:
    """The checkpoint of a run directory with the highest step.

    Raises:
        UserError: there is none.
    """
    return _newest_first(run)[0]


def ended_before_a_save(run: Path) -> bool:
    """Whether a run directory holds neither a checkpoint, whole or not, nor a trained encoder."""
    return not (run / "encoder.safetensors").exists() and not any((run / "checkpoints").glob("[!.]*"))


def newest_position(run: Path) -> dict[str, Any]:
    """``step``, ``seconds`` and ``length`` of the newest checkpoint of a run directory, without reading its tensors.

    Raises:
        UserError: there is none.
        ValueError, LookupError, TypeError: it is damaged.
    """
    try:
        with safe_open(newest_checkpoint(run), framework="pt") as file:
            state = dict(json.loads((file.metadata() or {})["state"])["dict"])
    except (OSError, SafetensorError) as error:
        raise ValueError(str(error)) from None
    return {name: state[name] for name in ("step", "seconds", "length")}


def load_newest(run: Path, tell: Callable[[str], None]) -> tuple[Path, dict[str, Any]]:
    """The newest intact checkpoint of a run directory, and its state.

    A damaged one is reported through ``tell``, renamed to ``*.damaged`` and skipped.

    Raises:
        UserError: there is none, none is intact, or the newest was written by a later version of frossl.
    """
    reasons = []
    for path in _newest_first(run):
        try:
            return path, load_checkpoint(path)
        except DamagedError as error:
            reasons.append(str(error))
            tell(f"{error}. Passed over; an older one is tried.")
            with suppress(OSError):
                path.rename(path.with_name(f"{path.name}.damaged"))
    raise UserError(f"no checkpoint of {run} is whole: {'; '.join(reasons)}")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state that :func:`save_checkpoint` wrote, with tensors on the CPU.

    Raises:
        DamagedError: the file is damaged, or no checkpoint.
        UserError: this version does not know its format.
    """
    tensors, metadata = read_sealed(path)
    if (form := metadata.get("format")) != FORMAT:
        raise UserError(f"{path} has checkpoint format {form}; this version of frossl reads {FORMAT}")
    if SEAL not in metadata:
        raise DamagedError(f"{path} has no checksum, which checkpoints have")
    try:
        return _from_json(json.loads(metadata["state"]), tensors)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path} does not hold what a checkpoint holds: {error!r}") from None


def random_state() -> dict[str, Any]:
    """State of the generators of torch, NumPy and Python, which encoders and methods may use; views do not."""
    name, keys, *rest = np.random.get_state()
    state: dict[str, Any] = {
        "cpu": torch.get_rng_state(),
        "numpy": [name, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "python": random.getstate(),
    }
    if has_context():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restores :func:`random_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and has_context():
        torch.cuda.set_rng_state(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def _newest_first(run: Path) -> list[Path]:
    """Checkpoints of a run, the best one last; raises UserError if there is none."""
    directory = run / "checkpoints"
    found = [*reversed(_by_age(directory)), *directory.glob(BEST)]
    if not found:
        raise UserError(f"{run} has no checkpoint in {directory}; is it a run directory of frossl?")
    return found


def _by_age(directory: Path) -> list[Path]:
    found = [path for path in directory.glob("step-*.safetensors") if path.stem[5:].isdecimal()]
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    """The step after which the checkpoint at ``path``, which is not the best, was written, as its name says it."""
    return int(path.stem.removeprefix("step-"))


def _to_json(value: Any, tensors: dict[str, Tensor]) -> Any:
    """``value`` with ``{"tensor": name}`` for tensors; dictionaries as pairs, as JSON keys are strings."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _to_json(v, tensors)] for key, v in value.items()]}
    return {"list": [_to_json(v, tensors) for v in value]} if isinstance(value, list | tuple) else value


def _from_json(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "dict" in value:
        return {k: _from_json(v, tensors) for k, v in value["dict"]}
    return [_from_json(v, tensors) for v in value["list"]]
