"""The directory of a run: its name, what is written and read there, how far the run came, whether it can go on."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shlex
from pathlib import Path
from typing import Any

from frossl.core.config import from_plain, to_plain
from frossl.core.length import Length
from frossl.core.progress import Progress
from frossl.core.types import UserError
from frossl.methods import find_method
from frossl.nn.encoder import OWN
from frossl.runs.checkpoint import newest_position
from frossl.runs.config import FREE_TO_CHANGE, Config
from frossl.runs.record import refuse_no_run
from frossl.views.recipes import Recipe, View


def worth_keeping(run: Path) -> bool:
    """Whether a run that ended in an error got as far as a row of metrics or a checkpoint."""
    metrics = run / "metrics.jsonl"
    return (metrics.exists() and metrics.stat().st_size > 0) or any((run / x).exists() for x in ("checkpoints", FAILED))


def unfinished(run: Path) -> str:
    """Where a run stands whose newest checkpoint is not that of its end, and how to go on, as a sentence.

    Nothing for a run that is finished, trains nothing, or has no checkpoint that tells.
    """
    try:
        about = json.loads((run / "config.json").read_text())
        saved = newest_position(run)
        length = Length.parse(saved["length"])
        total = length.steps(batch=about["batch"], images=about["images"][0])
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    if not saved["step"] or Progress(length, total, saved["step"], saved["seconds"]).share >= 1:
        return ""
    whole = f"of {total:,}" if total is not None else f"after {saved['seconds'] / 60:.1f} of {length.amount:g} min"
    return f"{run} is not finished: saved at step {saved['step']:,} {whole}. Go on with: {resume_command(run)}"


def encoder_of(run: Path) -> Path:
    """The exported encoder of a run directory.

    Raises:
        UserError: the run has not come so far, or is none.
    """
    refuse_no_run(run)
    path = run / "encoder.safetensors"
    if not path.exists():
        state = unfinished(run) or f"{run} is not finished. Go on with: {resume_command(run)}"
        raise UserError(f"there is no encoder yet: {state}")
    return path


def resume_command(run: Path) -> str:
    """What to type to go on with a run."""
    return shlex.join(["frossl", "pretrain", "--resume", str(run)])


def read_run(run: Path) -> tuple[Config, Recipe]:
    """Configuration and views of a run directory.

    Raises:
        UserError: it is none.
    """
    path = run / "config.json"
    refuse_no_run(run)
    try:
        saved = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(saved, dict) or "frossl" not in saved:
        raise UserError(f"{path} was not written by frossl")
    missing = [name for name in ("config", "views", "encoder") if name not in saved]
    if missing or not {"method", "objective"} <= set(saved["config"]):
        raise UserError(f"{path} is damaged: {', '.join(missing) or 'the method'} is missing in it")
    plain = saved["config"]
    objective = find_method(plain["method"]).Config
    config = from_plain(Config, {k: v for k, v in plain.items() if k != "objective"})
    config = dataclasses.replace(config, objective=from_plain(objective, plain["objective"]))
    return config, tuple(from_plain(View, view) for view in saved["views"])


def continued(run: Path, given: Config) -> Config:
    """The configuration of ``run`` with what ``given`` may change of it (:data:`FREE_TO_CHANGE`).

    Where ``given`` leaves something open, None or ``"auto"``, it stays as it was resolved.

    Raises:
        UserError: ``given`` would make it another run.
    """
    saved = read_run(run)[0]
    views = saved.views or 2
    wanted = dataclasses.replace(given, length=_in_images(given.length, views))
    pairs = [(f.name, getattr(saved, f.name), getattr(wanted, f.name)) for f in dataclasses.fields(Config)]
    if saved.method == given.method:
        options = dataclasses.fields(saved.objective)
        pairs += [(f.name, getattr(saved.objective, f.name), getattr(given.objective, f.name)) for f in options]
    changed = [
        name
        for name, before, after in pairs
        if name not in ("objective", *FREE_TO_CHANGE) and after not in (None, "auto", before)
    ]
    if changed:
        flags = ["DATA" if name == "data" else f"--{name.replace('_', '-')}" for name in changed]
        raise UserError(
            f"a resumed run keeps its configuration; {', '.join(flags)} would make it another run. Leave that out, "
            f"or start a new run without --resume. Free to change: {', '.join(FREE_TO_CHANGE).replace('_', '-')}"
        )
    return dataclasses.replace(saved, **{name: getattr(given, name) for name in FREE_TO_CHANGE})


def _in_images(length: str, views: int) -> str:
    """A length as it is saved."""
    return length if length == "auto" else str(Length.parse(length).as_images(views))


def own_module(run: Path) -> str:
    """The name of the module that the caller has to bring to ``run``; empty if it can be built, or nothing is said."""
    path = run / "config.json"
    if not path.exists():
        return ""
    read_run(run)
    backbone = json.loads(path.read_text())["encoder"]["backbone"]
    return backbone.removeprefix(OWN) if backbone.startswith(OWN) else ""


def refuse_without_own(run: Path) -> None:
    """Raises if ``run`` trains a module that the caller has to bring, or is no run."""
    refuse_no_run(run)
    if own := own_module(run):
        raise UserError(
            f"{run} trained a module of your own, {own}, which no command can build: go on from Python, and give one "
            "like it as backbone="
        )


def refuse_differences(run: Path, now: dict[str, Any]) -> None:
    """Raises if the data or the machine would make a resumed run another one."""
    then = json.loads((run / "config.json").read_text())
    then["views"] = to_plain(read_run(run)[1])  # with what views have now and had not then
    pairs = [(key, then.get(key), now[key]) for key in ("images", "views", "batch")]
    pairs += [(f"{key} of the encoder", then["encoder"].get(key), value) for key, value in now["encoder"].items()]
    changed = [f"{key} was {before}, would be {after}" for key, before, after in pairs if not _same(before, after)]
    if changed:
        raise UserError(
            f"{run} cannot go on as the same run, because the data or the device changed: {'; '.join(changed)}"
        )


def _same(before: Any, after: Any) -> bool:
    """Equal, but for the last digits of means and deviations, which earlier versions added up in another order."""
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(_same, before, after))
    if isinstance(before, float) and isinstance(after, float):
        return math.isclose(before, after, rel_tol=1e-9)
    return before == after


def new_run_directory(config: Config) -> Path:
    """Makes ``out/name``; without a name, the first free one of data and method.

    Raises:
        UserError: a run of that name exists, or the place cannot be written to.
    """
    data = Path(config.data).expanduser().absolute()
    place = Path(os.path.normpath(data)).name.lstrip(".")  # of . and .. the folder's own name, and nothing hidden
    stem = config.name or f"{place or 'data'}-{config.method.replace(':', '.')}"
    names = [stem] if config.name else [stem, *(f"{stem}-{i}" for i in range(2, 10_000))]
    for name in names:
        run = config.out / name
        try:
            run.mkdir(parents=True)
            return run
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"cannot make the run directory {run}: {error.strerror}. Choose another with --out"
            ) from None
    raise UserError(
        f"{config.out / stem} exists; choose another --name, or go on with it: {resume_command(config.out / stem)}"
    )


FAILED = "nonfinite"
"""Stem of the files that hold the last good state and the images of a step that was not finite."""
