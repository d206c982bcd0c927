"""The images of a run, opened in one way by everyone who needs them, and found again where they were moved."""

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
from frossl.runs.evaluation import same_source
from frossl.runs.record import read_config, read_json

DATA = "data.json"
VALIDATION = 0.1
"""Share of the training images that options are chosen on."""


@dataclass(frozen=True)
class Whereabouts:
    """What ``data.json`` of a run says: what its data are, and where they were found, the newest place first.

    ``source`` is what evaluations call them, wherever they are moved.
    """

    name: str
    source: str
    places: tuple[str, ...]
    data_dir: Path
    fingerprint: dict[str, Any]


def open_run_data(images: Images, log: Log = quiet) -> Dataset:
    """The data of a configuration; a split without a single known label counts as unlabelled."""
    data = open_data(images.data, images, log=log)
    splits = any_known(data.train.labels), any_known(data.test.labels)
    if (data.classes and not all(splits)) or (any(splits) and not data.targets):
        note = "labels are not used: one of the splits has none"
        data = dataclasses.replace(data, classes=(), notes=(*data.notes, note))
    return data


def for_training(config: Config, data: Dataset) -> Dataset:
    """What of ``data`` the method of ``config`` trains on: of a supervised one, images that have a label."""
    return with_labels(data) if find_method(config.method).uses_labels and data.classes else data


def on_validation(config: Config, data: Dataset) -> Dataset:
    """``data`` as a run that chooses options sees them: a part of the training images in place of the held-out ones.

    Raises:
        UserError: other seeds hold out other images, so that some of these would be held out there; or whole groups
            must be.
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
    """Writes ``data.json`` of a run that begins, for ``data`` as it trains on them; places that are there stay."""
    place, called = _absolute(config.data), same_source(config.data)
    known = whereabouts(run) or Whereabouts(data.name, called, (place,), config.data_dir.absolute(), {})
    _keep(run, dataclasses.replace(known, fingerprint=fingerprint(data)))


def changes_of_data(run: Path, data: Dataset) -> list[str]:
    """In what ``data``, as they are trained on, differ from those ``run`` began with, as far as is known."""
    known = whereabouts(run)
    return [] if known is None else differences(known.fingerprint, fingerprint(data))


def source_of(run: Path, data: str) -> str:
    """The name of the run's own data in evaluations; ``data`` is its option."""
    known = whereabouts(run)
    return same_source(data) if known is None else known.source


def open_data_of(run: Path, config: Config, log: Log = quiet) -> Dataset:
    """The data of ``run``, whose configuration is ``config``, wherever they are now.

    They are looked for where they were and where their path leads from the current directory; or, if ``config`` has
    another path than the run, there alone. Where there is a choice, and at a new place, they must have the fingerprint
    of the run; the place is then kept.

    Raises:
        UserError: they are at none of these places; says what differs from them at each.
    """
    known = whereabouts(run)
    if known is None:
        return open_run_data(config, log)
    here = _absolute(config.data)
    anew = config.data != read_config(run)["config"]["data"]
    places = [here] if anew else list(dict.fromkeys([*known.places, here]))
    there = [place for place in places if is_there(place)]
    found = [f"{place} is not there" for place in places if place not in there]
    for place in there:
        data = open_run_data(dataclasses.replace(config, data=place), log)
        changed = differences(known.fingerprint, fingerprint(for_training(config, data)))
        if (place in known.places and len(there) == 1) or not changed:
            return _found(run, known, place, data)
        found.append(f"{place} holds other images ({', '.join(changed)})")
    raise UserError(
        f"the data of {run} cannot be found: {'; '.join(found)}. If they were moved, say where: frossl pretrain DATA "
        "--resume RUN, frossl evaluate RUN --data DATA or frossl report RUN --data DATA"
    )


def open_to_evaluate(run: Path, own: Config, source: str | None, log: Log = quiet) -> tuple[Dataset, str]:
    """The data at ``source``, or those of ``run`` if it is None or they were moved there, and what to call them.

    ``own`` is the configuration of the run; labels of other data are used whatever it says.
    """
    if source is None:
        return open_data_of(run, own, log), source_of(run, own.data)
    known, called = whereabouts(run), source_of(run, own.data)
    own, data = _open_elsewhere(own, source, log)
    if known is None and same_source(source) == called:
        return data, called
    if known is not None and (_absolute(source) in known.places or _alike(known, for_training(own, data))):
        return _found(run, known, _absolute(source), data), called
    if not own.labels:
        data = open_run_data(dataclasses.replace(own, data=source, labels=True), log)
    return data, same_source(source)


def _open_elsewhere(own: Config, source: str, log: Log) -> tuple[Config, Dataset]:
    """The data at ``source`` as ``own`` opens its own, but without its columns where there are none such."""
    own = dataclasses.replace(own, data=source)
    try:
        return own, open_run_data(own, log)
    except UserError:
        if not any(getattr(own, name) for name in COLUMNS):
            raise
        own = dataclasses.replace(own, **dict.fromkeys(COLUMNS))
        return own, open_run_data(own, log)


def _alike(known: Whereabouts, data: Dataset) -> bool:
    """Whether ``data`` are those of a run; most others differ in their number already."""
    counts = [len(data.train), len(data.test)]
    return known.fingerprint["images"] == counts and known.fingerprint == fingerprint(data)


def _found(run: Path, known: Whereabouts, place: str, data: Dataset) -> Dataset:
    """``data`` under the name that they had, and their ``place`` kept as the newest."""
    places = tuple(dict.fromkeys([place, *known.places]))
    if places != known.places:
        _keep(run, dataclasses.replace(known, places=places))
    return dataclasses.replace(data, name=known.name)


def _keep(run: Path, known: Whereabouts) -> None:
    if rank() == 0:
        write_text(run / DATA, json.dumps(to_plain(known), indent=2) + "\n")


def _absolute(source: str) -> str:
    """As :func:`same_source`, but links stay, as they may come to lead elsewhere."""
    return resolve_source(source, links=False)
