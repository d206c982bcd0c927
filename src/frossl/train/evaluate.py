"""The evaluation of a run's encoder beside its controls."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from rich.console import Console
from rich.markup import escape
from torch import nn

from frossl.core.distributed import rank
from frossl.data import Dataset
from frossl.evals import find_metric
from frossl.evals.extract import Extractor
from frossl.evals.suite import PROTOCOLS, Evaluation, evaluate
from frossl.nn.encoder import load_encoder
from frossl.report import terminal
from frossl.runs.data import open_run_data
from frossl.runs.directory import (
    encoder_of,
    read_run,
    unfinished,
)
from frossl.runs.evaluation import keep_evaluation, same_source
from frossl.train.plan import make_plan


def evaluate_run(
    run: Path | str,
    *,
    source: str | None = None,
    data: Dataset | None = None,
    backbone: nn.Module | None = None,
    protocols: tuple[str, ...] = PROTOCOLS,
    others: Mapping[str, nn.Module] = MappingProxyType({}),
    known: Mapping[str, dict[str, float]] = MappingProxyType({}),
    data_dir: Path | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> Evaluation:
    """Evaluates the exported encoder of ``run`` beside its controls, on its own data or on ``source``.

    The result is merged into ``evaluation.json`` of the run under the name of the data. A run of a module of one's own
    needs it as ``backbone``, untrained, as it is also the control; without, the control is built from the seed of the
    run. Named data are looked for in ``data_dir``, by default that of the run. ``others`` are further encoders of the
    same kind, by the name of their arm; arms that are ``known`` already are not measured again.

    Raises:
        UserError: no such run or protocol, an encoder whose keys do not all load, or data with other channels.
    """
    console, run = console or Console(quiet=True), Path(run)
    for name in protocols:
        find_metric(name)
    own, recipe = read_run(run)
    own = dataclasses.replace(own, device=device, data_dir=data_dir or own.data_dir)
    encoder, spec = load_encoder(encoder_of(run), backbone)
    if told := unfinished(run):
        console.print(f"[yellow]{escape(told)}[/]", highlight=False, soft_wrap=True)
    config = own
    if data is None:
        elsewhere = source is not None and same_source(source) != same_source(own.data)
        channels = spec.channels if spec.channels in (1, 3) else None
        labels = own.labels or elsewhere  # --no-labels was said of the run's own data
        config = dataclasses.replace(own, data=source or own.data, channels=channels, labels=labels)
        data = open_run_data(config, terminal.detail(console))
        terminal.show_data(console, data)
    plan = make_plan(dataclasses.replace(config, batch=2), data, backbone)
    extractor = Extractor(device=plan.device, bf16=plan.precision == "bf16", workers=plan.workers, over_ranks=True)
    networks = {
        arm: network.to(plan.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for arm, network in {"pretrained": encoder, **others}.items()
    }
    with console.status("evaluating") as status:

        def log(message: str) -> None:
            status.update(escape(message))
            if not console.is_terminal:
                console.print(f"       {escape(message)}", style="dim", highlight=False, soft_wrap=True)

        def keep(evaluation: Evaluation) -> None:
            if rank() == 0:
                keep_evaluation(run / "evaluation.json", data.name, evaluation, same_source(own.data))

        evaluation = evaluate(
            networks.pop("pretrained"),
            spec,
            data,
            extractor,
            seed=config.seed,
            recipe=recipe,
            untrained=backbone,
            others=networks,
            known=known,
            protocols=protocols,
            source=same_source(config.data),
            log=log,
            keep=keep,
        )
    terminal.show_evaluation(console, evaluation)
    return evaluation
