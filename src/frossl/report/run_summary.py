"""The summary of one run in a report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from frossl.core.device import HALF, count, fork_random
from frossl.core.types import UserError
from frossl.data import Dataset
from frossl.evals import columns
from frossl.evals.extract import Extractor
from frossl.evals.spectral import participation_ratio
from frossl.evals.suite import CONTROLS
from frossl.nn.encoder import load_encoder
from frossl.report.gallery import show_encoder, show_views
from frossl.report.inspection import inspect_encoder, spectrum_shares
from frossl.report.tables import summary
from frossl.report.terminal import duration
from frossl.report.verdict import Verdict, judge
from frossl.runs.config import Config
from frossl.runs.data import find_run_data, for_training, source_of
from frossl.runs.directory import read_run
from frossl.runs.record import Record


@dataclass(frozen=True)
class RunSummary:
    """A run as a report shows it; ``missing`` says why there are no pictures, if there are none.

    ``about`` are its settings in a few words each. ``spectra`` are eigenvalues of held-out features as shares of their
    sum, by arm. ``pictures`` are by section.
    """

    record: Record
    about: list[str]
    verdict: Verdict
    tiles: list[tuple[str, str, str]]
    spectra: dict[str, list[float]]
    untrained_rank: float | None
    pictures: dict[str, Any]
    missing: str | None


def summarise_run(
    record: Record, data: Dataset | None, backbone: nn.Module | None, opened: dict[tuple[Any, ...], Dataset]
) -> RunSummary:
    """Inspects the encoder of a run with the images of the run; ``opened`` keeps data for the next run."""
    missing, pictures, features = None, {}, {}
    try:
        config, recipe = read_run(record.path)
        data = _open(record, config, opened) if data is None else data
        pictures["views"] = show_views(data, recipe, config.seed)
        with fork_random():  # which building an encoder draws from
            encoder, spec = load_encoder(record.path / "encoder.safetensors", backbone)
        seen = inspect_encoder(data, encoder, spec, _extractor(record, data), seed=config.seed, own=backbone)
        pictures |= show_encoder(seen)
        features = {"pretrained": seen.features.test_NF, "untrained": seen.untrained_NF}
    except UserError as error:
        missing = str(error)
    spectra = {arm: spectrum_shares(x) for arm, x in features.items()}
    ranks = {arm: participation_ratio(torch.tensor(shares)) for arm, shares in spectra.items()}
    arms = {"pretrained": {}} if record.evaluation is None else record.evaluation.shown()
    ranks |= {arm: values["effective_rank"] for arm, values in arms.items() if "effective_rank" in values}
    rank, untrained = ranks.get("pretrained", record.last("effective_rank")), ranks.get("untrained")
    return RunSummary(
        record=record,
        about=summary(record),
        verdict=judge(record, rank, untrained),
        tiles=tiles(record, arms, rank),
        spectra={arm: shares for arm, shares in spectra.items() if shares},
        untrained_rank=untrained,
        pictures=pictures,
        missing=missing,
    )


def tiles(record: Record, arms: Mapping[str, Mapping[str, float]], rank: float | None) -> list[tuple[str, str, str]]:
    """The key figures of a run: heading, value, note."""
    made = []
    names = ("knn_balanced", "linear_balanced", "knn", "linear", "r2", "mae")
    for name in [name for name in names if name in arms["pretrained"]][:2]:
        controls = [arms[k][name] for k in CONTROLS if name in arms.get(k, {})]
        best = min if columns()[name].better == "lower" else max
        note = f"best control {best(controls):.3f}" if controls else ""
        made.append((columns()[name].title, f"{arms['pretrained'][name]:.3f}", note))
    if rank is not None:
        made.append(("effective rank", f"{rank:.1f}", f"of {record.about['encoder']['features']:,} features"))
    if record.train or record.monitor:
        end = record.end
        epochs = f"{round(end['epoch'], 2):g}"
        in_all = f"in {epochs} {'epoch' if epochs == '1' else 'epochs'}, {record.views} views each"
        made.append(("images seen", f"{end['images']:,}", in_all))
        made.append(("time", duration(end["seconds"]), f"on {record.about['device']}"))
    return made


def _open(record: Record, config: Config, opened: dict[tuple[Any, ...], Dataset]) -> Dataset:
    """The data of a run, opened once for all runs that share them.

    Raises:
        UserError: they are not there, or other than they were.
    """
    key = (source_of(record.path, config.data), config.method, *config.data_options().values())
    if key not in opened:
        opened[key] = for_training(config, find_run_data(record.path, config))
    data = opened[key]
    now, then = [len(data.train), len(data.test)], record.about["images"]
    if now != then:
        raise UserError(
            f"{config.data} changed since the run: it had {then[0]:,} training and {then[1]:,} held-out images, and "
            f"has {now[0]:,} and {now[1]:,}"
        )
    return data


def _extractor(record: Record, data: Dataset) -> Extractor:
    """Computes as in the run, if this machine has its device."""
    device = torch.device(record.about["device"])
    here = count(device.type) > 0
    if (device.index or 0) >= count(device.type):  # the run had a machine with more of them
        device = torch.device(device.type if here else "cpu")
    half = HALF.get(record.about["precision"]) if here else None
    workers = 0 if data.train.in_memory else min(4, os.cpu_count() or 1)
    return Extractor(device=device, half=half, workers=workers)
