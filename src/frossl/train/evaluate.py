"""The evaluation of a run's encoder beside its controls."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from rich.console import Console
from torch import nn

from frossl.core.device import settle
from frossl.core.distributed import rank
from frossl.core.types import UserError
from frossl.data import Dataset
from frossl.data.open import resolve_source
from frossl.data.options import TargetChoice
from frossl.evals import defaults, find_metrics
from frossl.evals.extract import EVALUATED
from frossl.evals.suite import START, Evaluation, evaluate
from frossl.nn.encoder import EncoderSpec, load_encoder
from frossl.report import terminal
from frossl.report.verdict import train_on
from frossl.runs.config import Config
from frossl.runs.data import load_evaluation_data, source_of
from frossl.runs.directory import Weights, encoder_of, read_run, unfinished
from frossl.runs.record import keep_evaluation, read_config, read_record
from frossl.train.plan import make_plan
from frossl.train.ranks import load_on_all_ranks
from frossl.train.resources import device_of
from frossl.train.start import start_of_run


def evaluate_run(
    run: Path | str,
    *,
    source: str | None = None,
    targets: TargetChoice | None = None,
    weights: Weights = "online",
    data: Dataset | None = None,
    backbone: nn.Module | None = None,
    protocols: tuple[str, ...] = defaults("evaluate"),
    others: Mapping[str, nn.Module] = MappingProxyType({}),
    known: Mapping[str, dict[str, float]] = MappingProxyType({}),
    data_dir: Path | None = None,
    max_pixels: int | None = None,
    bank: int = EVALUATED,
    device: str = "auto",
    console: Console | None = None,
) -> Evaluation:
    """Evaluates the exported encoder of ``run`` beside its controls, on its own data or on ``source``.

    Merges the result into ``evaluation.json`` of the run, if possible, under the name of the data. A run of a module of
    yours needs it untrained as ``backbone``, for the control. ``data_dir`` and ``targets``, the kind of labels that are
    numbers, are those of the run by default; ``max_pixels`` is for images of ``source``. With ``weights`` "averaged"
    the moving average is a further arm; the verdict is still that of the trained encoder. ``others`` are further
    encoders, by arm; ``known`` arms are not measured again. Uses at most ``bank`` training images.

    Raises:
        UserError: no such run or protocol, a method without averaged network, an encoder whose keys do not all load, or
            data with other channels.
    """
    console, run = console or Console(quiet=True), Path(run)
    find_metrics(protocols)
    saved, recipe = read_run(run)
    own = on_this_device(run, dataclasses.replace(saved, device=device, data_dir=data_dir or saved.data_dir))
    encoder, spec = load_encoder(encoder_of(run), backbone)
    if (began := start_of_run(run)) is not None:
        others = {START: began, **others}
    if weights == "averaged":
        others = {"averaged": load_encoder(encoder_of(run, weights), backbone)[0], **others}
    if message := unfinished(run):
        terminal.warn(console, message)
    name = source_of(run, own.data)
    if data is None:
        # Of the run's own data, other images would be held out.
        if max_pixels is not None and (source is None or resolve_source(source) == name):
            raise UserError("--max-pixels is for the images of --data; those of the run stay those it was trained on")
        limits = {"targets": targets or own.targets, "max_pixels": max_pixels or own.max_pixels}
        own = dataclasses.replace(own, channels=spec.channels, range=spec.range or None, **limits)
        data, name = load_on_all_ranks(lambda: load_evaluation_data(run, own, source, terminal.detail(console)))
        check_scale(data, spec)
        terminal.show_data(console, data)
    plan = make_plan(dataclasses.replace(own, batch=2), data, backbone)
    settle(plan.device, plan.precision, own.deterministic)
    for network in (encoder, *others.values()):
        network.to(plan.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    how = {"seed": own.seed, "recipe": recipe, "untrained": backbone, "others": others, "known": known}
    how |= {"protocols": protocols, "source": name, "bank": bank, "save": _saver(run, own, data.name, console)}
    with terminal.working(console, "evaluating") as log:
        evaluation = evaluate(encoder, spec, data, plan.extractor(over_ranks=True), log=log, **how)
    terminal.show_evaluation(console, evaluation, train_on(read_record(run), evaluation))
    return evaluation


def _saver(run: Path, own: Config, name: str, console: Console) -> Callable[[Evaluation], None]:
    """Merges an evaluation on the data ``name`` into that of ``run``, on the first rank, if it can be written."""
    if not os.access(run, os.W_OK):
        terminal.warn(console, f"{run} cannot be written to: what is measured is shown here, and not kept there")
    elif rank() == 0:
        return partial(keep_evaluation, run / "evaluation.json", name, own=source_of(run, own.data))
    return lambda evaluation: None


def check_scale(data: Dataset, spec: EncoderSpec) -> None:
    """Raises UserError if the encoder was trained on 8-bit images and these are others, or the reverse."""
    if spec.range and (data.values == "uint8") != (spec.values == "uint8"):
        raise UserError(
            f"{data.name} holds {data.values}, and the encoder was trained on {spec.values} from "
            f"{' '.join(f'{value:g}' for value in spec.range)}; write the images as they were for training"
        )


def on_this_device(run: Path, own: Config) -> Config:
    """``own`` with a precision that the device supports, where its kind is not that of the run."""
    other = device_of(own).type != torch.device(read_config(run)["device"]).type
    return dataclasses.replace(own, precision="auto") if other and own.precision not in ("64", "32") else own
