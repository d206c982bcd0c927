"""Encoders from anywhere, measured on the same images without training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from torch import nn

from frossl.core.device import HALF, settle
from frossl.core.types import UserError
from frossl.data.open import resolve_source
from frossl.evals import defaults, find_metrics
from frossl.evals.extract import EVALUATED, Extractor, first
from frossl.evals.suite import measure_arms, untrained_encoder
from frossl.nn.encoder import EncoderSpec
from frossl.nn.output import feature_width
from frossl.nn.published import Architecture, Start, build_with_weights, for_images
from frossl.report import terminal
from frossl.report.encoders import SideBySide
from frossl.runs.config import Config
from frossl.runs.data import load_run_data
from frossl.runs.encoders import RESNET18, read_any_encoder
from frossl.train.ranks import load_on_all_ranks
from frossl.train.resources import device_of, find_precision, workers_for
from frossl.views.recipes import VIEWS, Recipe, domain, with_size

Subject = tuple[nn.Module, EncoderSpec, Recipe]


def evaluate_encoders(
    config: Config,
    encoders: Sequence[str],
    *,
    net: Architecture = RESNET18,
    protocols: tuple[str, ...] = defaults("evaluate"),
    bank: int = EVALUATED,
    console: Console | None = None,
) -> SideBySide:
    """Measures ``encoders``, each a name for :func:`read_any_encoder`, beside untrained ones and raw pixels.

    ``config`` gives the images and the device. Each encoder gets the size, mean, deviation and interpolation that it
    was published with; ``config.size`` is another size for all of them. ``net`` is the architecture of files of
    weights.

    Raises:
        UserError: no such encoder or metric, or encoders of images with different ranges.
    """
    console = console or Console(quiet=True)
    find_metrics(protocols)
    log = terminal.detail(console)
    names = arm_names(encoders)
    starts = {name: read_any_encoder(where, net=net, log=log) for name, where in zip(names, encoders, strict=True)}
    data = load_on_all_ranks(lambda: load_run_data(_on_scale(config, starts), log))
    terminal.show_data(console, data)
    device = device_of(config)
    precision = find_precision(config.precision, device)
    settle(device, precision, config.deterministic)
    extractor = Extractor(device=device, half=HALF.get(precision), workers=workers_for(config, data), over_ranks=True)
    subjects: dict[str, Subject] = {}
    recipe = VIEWS[domain(data.channels)]
    for name, (state, spec) in starts.items():
        asked = for_images(spec, channels=data.channels, size=config.size or spec.size)
        module = build_with_weights(state, spec, asked, log)
        asked = dataclasses.replace(asked, features=feature_width(module, asked.channels, asked.size))
        subjects[name] = module.to(device), asked, with_size(recipe, asked.size)
    specs = {name: spec for name, (_, spec, _) in subjects.items()}
    controls = _control_names(specs)
    untrained: dict[str, Subject] = {}
    for name, control in controls.items():
        if control not in untrained:
            _, spec, recipe = subjects[name]
            network = untrained_encoder(spec, config.seed).to(device)
            extractor.each(lambda n=network, s=spec: extractor.settle_batch_norm(n, first(data.train, bank), s))
            untrained[control] = network, spec, recipe
    with terminal.working(console, "evaluating") as tell:
        how = {"seed": config.seed, "protocols": protocols, "source": resolve_source(config.data), "bank": bank}
        evaluation = measure_arms(subjects | untrained, data, extractor, log=tell, **how)
    return SideBySide(data.name, evaluation, specs, controls)


def arm_names(encoders: Sequence[str]) -> list[str]:
    """Short names of encoders: of paths, the shortest end that no other has.

    >>> arm_names(["runs/a/start.safetensors", "runs/b/start.safetensors", "lite0"])
    ['a/start.safetensors', 'b/start.safetensors', 'lite0']

    Raises:
        UserError: one is given twice.
    """
    parts = {where: (where,) if ":" in where else Path(where).parts or (where,) for where in encoders}
    if len(set(parts.values())) < len(encoders):
        raise UserError("--encoder: the same encoder is given twice")
    names = []
    for where, of in parts.items():
        others = [o for w, o in parts.items() if w != where]
        length = next(n for n in range(1, len(of) + 1) if n == len(of) or all(o[-n:] != of[-n:] for o in others))
        names.append("/".join(of[-length:]))
    return names


def _on_scale(config: Config, starts: dict[str, Start]) -> Config:
    """``config`` with the intensity range of the encoders; raises UserError if they have different ones."""
    ranges = {name: spec.range for name, (_, spec) in starts.items() if spec.range}
    if len(set(ranges.values())) > 1:
        all_ranges = "; ".join(f"{name} {' '.join(f'{x:g}' for x in pairs)}" for name, pairs in ranges.items())
        raise UserError(
            f"these encoders were trained on different ranges of intensities: {all_ranges}. Measure them apart"
        )
    return dataclasses.replace(config, range=next(iter(ranges.values()))) if ranges and not config.range else config


def _control_names(specs: dict[str, EncoderSpec]) -> dict[str, str]:
    """The name of the untrained encoder of each architecture: "untrained" if all encoders have the same."""
    kinds = {(s.title, s.size, s.mean, s.std) for s in specs.values()}
    if len(kinds) == 1:
        return dict.fromkeys(specs, "untrained")
    titles = [title for title, *_ in kinds]
    return {
        name: f"untrained {spec.title}" + f" at {spec.size}" * (titles.count(spec.title) > 1)
        for name, spec in specs.items()
    }
