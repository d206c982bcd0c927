"""The directory of a run: its name and files, how far the run came, and whether it can continue."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from torch import nn

from frossl.core.config import from_plain, to_plain
from frossl.core.files import write_text
from frossl.core.length import Length
from frossl.core.progress import Extension, Progress
from frossl.core.types import UserError
from frossl.data import Dataset
from frossl.data.open import source_name
from frossl.methods import METHODS, Method, find_method
from frossl.nn.encoder import OWN
from frossl.runs.checkpoint import newest_position
from frossl.runs.config import FREE_TO_CHANGE, Config
from frossl.runs.data import changes_of_data, whereabouts
from frossl.runs.record import read_config, refuse_no_run
from frossl.views.recipes import Recipe, View

Weights = Literal["online", "averaged"]
ENCODERS: dict[Weights, str] = {"online": "encoder.safetensors", "averaged": "encoder_averaged.safetensors"}
"""Files of the trained encoder, and of its moving average where the method has one."""
START_FILE = "start.safetensors"
"""The published encoder that training began with, if any."""
LOG, LOCK = "log.txt", ".lock"
"""The output of the terminal; the lock of the process that trains."""
FAILED = "nonfinite"
"""Folder of the last good state and the images of a step that was not finite."""
PATIENCE = 20.0
"""Seconds to wait for the lock: after a run was killed its decoding processes hold it for a while."""


def worth_keeping(run: Path) -> bool:
    """Whether a run that failed has a row of metrics or a checkpoint."""
    metrics = run / "metrics.jsonl"
    return (metrics.exists() and metrics.stat().st_size > 0) or any((run / x).exists() for x in ("checkpoints", FAILED))


def unfinished(run: Path) -> str:
    """How far a run came that has not ended, and how to continue it, as a sentence; empty as :func:`stopped_at`."""
    where = stopped_at(run)
    return f"{run} is not finished: saved at {where}. Go on with: {resume_command(run)}" if where else ""


def stopped_at(run: Path) -> str:
    """The step of the newest checkpoint of a run, and its last step; empty if it has ended or trains nothing."""
    try:
        about, saved = read_config(run), newest_position(run)
        length = Length.parse(about["config"]["length"])
        total = length.steps(batch=about["batch"], images=about["images"][0])
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    if not saved["step"] or Progress(length, total, saved["step"], saved["seconds"]).fraction >= 1:
        return ""
    whole = f"of {total:,}" if total is not None else f"after {saved['seconds'] / 60:.1f} of {length.amount:g} min"
    return f"step {saved['step']:,} {whole}"


def encoder_of(run: Path, weights: Weights = "online") -> Path:
    """The file of the encoder of a run directory, or of its moving average.

    Raises:
        UserError: there is none yet, ``run`` is no run directory, or its method has no averaged network.
    """
    refuse_no_run(run)
    path = run / ENCODERS[weights]
    if path.exists():
        return path
    name = read_config(run)["config"]["method"]
    if weights == "averaged" and find_method(name).momentum is Method.momentum:
        averaged = ", ".join(known for known, kind in METHODS.items() if kind.momentum is not Method.momentum)
        raise UserError(
            f"--weights averaged: the method of {run}, {name}, has no averaged network; of the methods here {averaged} "
            "have one. Leave --weights out"
        )
    state = unfinished(run) or f"{run} is not finished. Go on with: {resume_command(run)}"
    raise UserError(f"there is no encoder yet: {state}")


def resume_command(run: Path) -> str:
    """The command that continues a run."""
    return shlex.join(["frossl", "pretrain", "--resume", str(run)])


def read_run(run: Path) -> tuple[Config, Recipe]:
    """Configuration and view recipe of a run directory; ``data_dir`` does not depend on the current directory.

    Raises:
        UserError: it is no run directory.
    """
    saved = read_config(run)
    plain = saved["config"]
    objective = from_plain(find_method(plain["method"]).Config, plain["objective"])
    config = from_plain(Config, plain | {"objective": objective})
    known = whereabouts(run)
    if known is not None and known.data_dir.exists():
        config = dataclasses.replace(config, data_dir=known.data_dir)
    return config, tuple(from_plain(View, view) for view in saved["views"])


def continued(run: Path, given: Config, own: bool = False) -> Config:
    """The configuration of ``run`` with what ``given`` may change: :data:`FREE_TO_CHANGE`, length and path of data.

    None and ``"auto"`` in ``given`` keep the resolved value. With a module of your ``own`` the options of the backbone
    are ignored; :func:`refuse_differences` compares the encoders.

    Raises:
        UserError: ``given`` would make it another run.
    """
    saved = read_run(run)[0]
    then, now = (
        vars(config) | (vars(config.objective) if saved.method == given.method else {}) for config in (saved, given)
    )
    length = saved.length if given.length == "auto" else str(Length.parse(given.length).as_images(saved.views or 2))
    fixed = now.keys() - {"objective", "data", "length", *FREE_TO_CHANGE}
    if own or (saved.init is not None and saved.init == given.init):  # these decide the backbone
        fixed -= {"backbone", "backbone_options", "stem"}
    changed = [name for name in now if name in fixed and now[name] not in (None, "auto", then[name])]
    if changed:
        flags = [f"--{name.replace('_', '-')}" for name in changed]
        raise UserError(
            f"a resumed run keeps its configuration; {', '.join(flags)} would make it another run. Leave that out, "
            f"or start a new run without --resume. Free to change: {', '.join(FREE_TO_CHANGE).replace('_', '-')}, "
            "the length (a longer one), and the place of the same data"
        )
    free = {name: getattr(given, name) for name in ("data", *FREE_TO_CHANGE)}
    return dataclasses.replace(saved, **free, length=length)


def keep_length(run: Path, length: Length, extensions: Sequence[Extension]) -> None:
    """Writes a new length to ``config.json``, with all changes of it; renames evaluations of the encoder before it."""
    about = read_config(run)
    about["config"]["length"] = str(length)
    write_text(run / "config.json", json.dumps(about | {"extensions": to_plain(tuple(extensions))}, indent=2) + "\n")
    evaluation = run / "evaluation.json"
    if evaluation.exists():
        evaluation.rename(run / f"evaluation-step-{extensions[-1].step}.json")


def require_own(run: Path, backbone: nn.Module | None) -> None:
    """Raises UserError if ``run`` needs a module of the caller as ``backbone``, or is no run."""
    trained = read_config(run)["encoder"]["backbone"]
    if backbone is None and trained.startswith(OWN):
        raise UserError(
            f"{run} trained a module of your own, {trained.removeprefix(OWN)}, which no command can build: go on from "
            "Python, and give one like it as backbone="
        )


def refuse_differences(run: Path, now: dict[str, Any], data: Dataset) -> None:
    """Raises UserError if the data or the machine would make a resumed run another one."""
    then = read_config(run)
    pairs = [(key, then[key], now[key]) for key in ("images", "views", "batch")]
    pairs += [(f"{key} of the encoder", then["encoder"].get(key), value) for key, value in now["encoder"].items()]
    changed = [f"{key} was {before}, would be {after}" for key, before, after in pairs if before != after]
    changed = changed or changes_of_data(run, data)
    if changed:
        raise UserError(
            f"{run} cannot go on as the same run, because the data or the device changed: {'; '.join(changed)}"
        )


def begun_run(config: Config) -> Path | None:
    """The directory of the name of ``config``, if a run has begun there.

    Raises:
        UserError: ``config`` has no name.
    """
    if config.name is None:
        raise UserError("--resume auto goes on with the run of a name, or starts it; give --name too")
    run = config.out / config.name
    return run if (run / "config.json").exists() else None


def new_run_directory(config: Config, again: bool = False) -> Path:
    """Makes ``out/name``; without a name, the first free one of data and method.

    ``again``: also returns a directory of that name in which a run ended before it had written its configuration.

    Raises:
        UserError: a run of that name exists, or the directory cannot be made.
    """
    stem = config.name or f"{source_name(config.data) or 'data'}-{config.method.replace(':', '.')}"
    if again and (config.out / stem).is_dir():
        whole = {p.name for p in (config.out / stem).iterdir() if not fnmatch(p.name, ".*.partial")}
        if whole <= {LOG, LOCK, START_FILE}:  # written before the configuration
            return config.out / stem
    return first_free(config.out / stem, numbered=config.name is None)


def first_free(path: Path, numbered: bool = True) -> Path:
    """Makes the directory ``path``; if it exists and names may be ``numbered``, the first of ``path-2``, ``path-3``...

    Raises:
        UserError: the directory exists, or cannot be made.
    """
    for suffix in ("", *(f"-{i}" for i in range(2, 10_000 if numbered else 2))):
        run = path.with_name(path.name + suffix)
        try:
            run.mkdir(parents=True)
            return run
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"cannot make the run directory {run}: {error.strerror}; choose another --out") from None
    raise _exists(path)


@contextmanager
def alone_in(run: Path) -> Iterator[None]:
    """Locks ``run`` for the process that trains; does nothing where files cannot be locked.

    Raises:
        UserError: another process trains there.
    """
    lock = FileLock(run / LOCK, timeout=PATIENCE)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"another process trains in {run}; wait for it, or stop it") from None
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        lock.release()


def refuse_begun(run: Path) -> None:
    """Raises UserError if a run has begun in the directory."""
    if (run / "config.json").exists():
        raise _exists(run)


def _exists(run: Path) -> UserError:
    return UserError(f"{run} exists; choose another --name, or go on with it: {resume_command(run)}")
