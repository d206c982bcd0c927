"""The evaluation of a run's encoder beside its controls."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from rich.console import Console
from torch import nn

from frossl.core.device import settle
from frossl.core.distributed import rank
from frossl.core.types import UserError
from frossl.data import Dataset
from frossl.data.options import TargetChoice
from frossl.evals import defaults, find_metrics
from frossl.evals.extract import EVALUATED
from frossl.evals.suite import START, Evaluation, evaluate
from frossl.nn.encoder import EncoderSpec, load_encoder
from frossl.report import terminal
from frossl.runs.config import Config
from frossl.runs.data import open_to_evaluate, source_of
from frossl.runs.directory import Weights, encoder_of, read_run, unfinished
from frossl.runs.evaluation import keep_evaluation, same_source
from frossl.runs.record import read_config
from frossl.train.plan import make_plan
from frossl.train.ranks import open_together
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

    The result is merged into ``evaluation.json`` of the run, if that can be written, under the name of the data. A run
    of a module of one's own needs it untrained as ``backbone``, as it is the control. ``data_dir`` and ``targets``,
    what numbers as labels are, are those of the run by default; ``max_pixels`` is for images of ``source``. With
    ``weights`` "averaged" the moving average of the encoder is an arm too, ``averaged``; the verdict is still that of
    the trained encoder. ``others`` are further encoders, by arm; ``known`` arms are not measured again. At most
    ``bank`` training images are used.

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
    if told := unfinished(run):
        terminal.warn(console, told)
    called = source_of(run, own)
    if data is None:
        own = _on(own, spec, source is not None and same_source(source) != called, targets, max_pixels)
        data, called = open_together(lambda: open_to_evaluate(run, own, source, terminal.detail(console)))
        check_scale(data, spec)
        terminal.show_data(console, data)
    plan = make_plan(dataclasses.replace(own, batch=2), data, backbone)
    settle(plan.device, plan.precision, own.deterministic)
    for network in (encoder, *others.values()):
        network.to(plan.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    keep = _keeper(run, own, data.name, console)
    how = {"seed": own.seed, "recipe": recipe, "untrained": backbone, "others": others, "known": known}
    how |= {"protocols": protocols, "source": called, "bank": bank, "save": keep}
    with terminal.working(console, "evaluating") as log:
        evaluation = evaluate(encoder, spec, data, plan.extractor(over_ranks=True), log=log, **how)
    terminal.show_evaluation(console, evaluation)
    return evaluation


def _keeper(run: Path, own: Config, name: str, console: Console) -> Callable[[Evaluation], None]:
    """What merges an evaluation on the data ``name`` into that of ``run``, on the first rank, if it can be written."""
    writable = os.access(run, os.W_OK)
    if not writable:
        terminal.warn(console, f"{run} cannot be written to: what is measured is shown here, and not kept there")

    def keep(evaluation: Evaluation) -> None:
        if rank() == 0 and writable:
            keep_evaluation(run / "evaluation.json", name, evaluation, source_of(run, own))

    return keep


def check_scale(data: Dataset, spec: EncoderSpec) -> None:
    """Raises UserError for images of 8 bits where the encoder was trained on a range of others, or the reverse."""
    if spec.range and (data.values == "uint8") != (spec.values == "uint8"):
        raise UserError(
            f"{data.name} holds {data.values}, and the encoder was trained on {spec.values} from "
            f"{' '.join(f'{value:g}' for value in spec.range)}; write the images as they were for training"
        )


def on_this_device(run: Path, own: Config) -> Config:
    """``own`` in a precision that the device has: one of another kind than that of the run may not compute in bf16."""
    other = device_of(own).type != torch.device(read_config(run)["device"]).type
    return dataclasses.replace(own, precision="auto") if other and own.precision not in ("64", "32") else own


def _on(
    own: Config, spec: EncoderSpec, elsewhere: bool, targets: TargetChoice | None, max_pixels: int | None
) -> Config:
    """The configuration of a run to open data with for its encoder, its own or others."""
    if max_pixels is not None and not elsewhere:  # with more or fewer images, others would be held out
        raise UserError("--max-pixels is for the images of --data; those of the run stay those it was trained on")
    return dataclasses.replace(
        own,
        channels=spec.channels,
        range=spec.range or None,
        targets=targets or own.targets,
        max_pixels=max_pixels or own.max_pixels,
    )
