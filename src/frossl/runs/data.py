"""The images of a run: opened the same way everywhere, and found again after they were moved."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frossl.core.config import from_plain, to_plain
from frossl.core.distributed import rank
from frossl.core.files import write_text
from frossl.core.types import UserError, any_known
from frossl.data import Dataset, open_data
from frossl.data.build import validation_part
from frossl.data.fingerprint import differences, fingerprint
from frossl.data.open import is_there, resolve_source
from frossl.data.options import COLUMNS, Log, quiet
from frossl.evals.extract import first, with_labels
from frossl.methods import find_method
from frossl.runs.config import Config, Images
from frossl.runs.record import read_config, read_json

DATA = "data.json"
VALIDATION = 0.1
"""Fraction of the training images on which options are chosen."""


@dataclass(frozen=True)
class Whereabouts:
    """The content of ``data.json``: the identity of the data of a run, and where they were found, newest place first.

    ``source`` is their name in evaluations, also after they were moved.
    """

    name: str
    source: str
    places: tuple[str, ...]
    data_dir: Path
    fingerprint: dict[str, Any]


def load_run_data(images: Images, log: Log = quiet) -> Dataset:
    """The data of a configuration; a split without a single known label counts as unlabelled."""
    data = open_data(images.data, images, log=log)
    splits = any_known(data.train.labels), any_known(data.test.labels)
    if (data.classes and not all(splits)) or (any(splits) and not data.targets):
        note = "labels are not used: one of the splits has none"
        data = dataclasses.replace(data, classes=(), notes=(*data.notes, note))
    return data


def for_training(config: Config, data: Dataset) -> Dataset:
    """The images of ``data`` that ``config`` trains on: for a supervised method those with a label."""
    return with_labels(data) if find_method(config.method).uses_labels and data.classes else data


def on_validation(config: Config, data: Dataset) -> Dataset:
    """``data`` with a part of the training images in place of the held-out ones, to choose options.

    Raises:
        UserError: the data have no split of their own, or whole groups must be held out.
    """
    if data.drawn:
        raise UserError(
            f"{data.name} brings no held-out split, so that each seed holds out other images: what is chosen on "
            "training images of one would be chosen on held-out images of another. Give the data a test split, in a "
            "folder or list of its own, to choose options"
        )
    if config.group is not None:
        raise UserError("--group: options cannot be chosen on whole groups; leave --tune-lr and --validation out")
    data = validation_part(data, VALIDATION)
    return dataclasses.replace(data, test=first(data.test, len(data.test)))


def whereabouts(run: Path) -> Whereabouts | None:
    """``data.json`` of a run directory; None if there is none.

    Raises:
        UserError: it is damaged.
    """
    path = run / DATA
    if not path.exists():
        return None
    plain = read_json(path)
    if not isinstance(plain, dict):
        raise UserError(f"{path} was not written by frossl")
    return from_plain(Whereabouts, plain)


def keep_whereabouts(run: Path, config: Config, data: Dataset) -> None:
    """Writes ``data.json`` of a new run with the fingerprint of ``data``; keeps known places."""
    source, places = resolve_source(config.data), (_absolute(config.data),)
    known = whereabouts(run) or Whereabouts(data.name, source, places, config.data_dir.absolute(), {})
    _keep(run, dataclasses.replace(known, fingerprint=fingerprint(data)))


def changes_of_data(run: Path, data: Dataset) -> list[str]:
    """The differences of ``data`` to those that ``run`` began with, as far as they are known."""
    known = whereabouts(run)
    return [] if known is None else differences(known.fingerprint, fingerprint(data))


def source_of(run: Path, data: str) -> str:
    """The name of the run's own data in evaluations; ``data`` is its option."""
    known = whereabouts(run)
    return resolve_source(data) if known is None else known.source


def find_run_data(run: Path, config: Config, log: Log = quiet) -> Dataset:
    """The data of ``run``, whose configuration is ``config``, wherever they are now.

    Searches the known places and the path from the current directory; if ``config`` has another path than the run, only
    that. At a new place, or if several exist, the fingerprint must match; the place is then added to ``data.json``.

    Raises:
        UserError: the data are at none of these places; says how they differ at each.
    """
    known = whereabouts(run)
    if known is None:
        return load_run_data(config, log)
    here = _absolute(config.data)
    moved = config.data != read_config(run)["config"]["data"]
    places = [here] if moved else list(dict.fromkeys([*known.places, here]))
    there = [place for place in places if is_there(place)]
    problems = [f"{place} is not there" for place in places if place not in there]
    for place in there:
        data = load_run_data(dataclasses.replace(config, data=place), log)
        changed = differences(known.fingerprint, fingerprint(for_training(config, data)))
        if (place in known.places and len(there) == 1) or not changed:
            return _found(run, known, place, data)
        problems.append(f"{place} holds other images ({', '.join(changed)})")
    raise UserError(
        f"the data of {run} cannot be found: {'; '.join(problems)}. If they were moved, say where: frossl pretrain "
        "DATA --resume RUN, frossl evaluate RUN --data DATA or frossl report RUN --data DATA"
    )


def load_evaluation_data(run: Path, own: Config, source: str | None, log: Log = quiet) -> tuple[Dataset, str]:
    """The data at ``source``, or those of ``run`` (if None, or if they were moved there), and their evaluations' name.

    ``own`` is the configuration of the run; labels of other data are always used.
    """
    known, name = whereabouts(run), source_of(run, own.data)
    if source is None:
        return find_run_data(run, own, log), name
    own, data = _load_elsewhere(own, source, log)
    if known is None and resolve_source(source) == name:
        return data, name
    if known is not None and (_absolute(source) in known.places or _has_fingerprint(known, for_training(own, data))):
        return _found(run, known, _absolute(source), data), name
    if not own.labels:
        data = load_run_data(dataclasses.replace(own, data=source, labels=True), log)
    return data, resolve_source(source)


def _load_elsewhere(own: Config, source: str, log: Log) -> tuple[Config, Dataset]:
    """The data at ``source`` with the options of ``own``, without its columns if these data do not have them."""
    own = dataclasses.replace(own, data=source)
    try:
        return own, load_run_data(own, log)
    except UserError:
        if not any(getattr(own, name) for name in COLUMNS):
            raise
        own = dataclasses.replace(own, **dict.fromkeys(COLUMNS))
        return own, load_run_data(own, log)


def _has_fingerprint(known: Whereabouts, data: Dataset) -> bool:
    counts = [len(data.train), len(data.test)]  # compared first, as the fingerprint reads images
    return known.fingerprint["images"] == counts and known.fingerprint == fingerprint(data)


def _found(run: Path, known: Whereabouts, place: str, data: Dataset) -> Dataset:
    """``data`` under their first name; adds ``place`` to ``data.json`` as the newest."""
    places = tuple(dict.fromkeys([place, *known.places]))
    if places != known.places:
        _keep(run, dataclasses.replace(known, places=places))
    return dataclasses.replace(data, name=known.name)


def _keep(run: Path, known: Whereabouts) -> None:
    if rank() == 0:
        write_text(run / DATA, json.dumps(to_plain(known), indent=2) + "\n")


def _absolute(source: str) -> str:
    """As :func:`resolve_source`, but without resolving links, whose targets may change."""
    return resolve_source(source, links=False)
