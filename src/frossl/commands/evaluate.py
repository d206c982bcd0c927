"""``frossl evaluate``: the encoder of a run beside its controls."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from frossl.core.distributed import rank
from frossl.core.launch import launched, start_ranks, without
from frossl.core.types import UserError
from frossl.data.open import join_sources, source_name
from frossl.data.options import TargetChoice
from frossl.evals import defaults, find_metrics
from frossl.evals.extract import EVALUATED
from frossl.report.encoders import show_encoders, write_encoders
from frossl.report.terminal import logged, wrote
from frossl.runs.config import Config, Device
from frossl.runs.directory import LOG, Weights, encoder_of, read_run
from frossl.train.embed import EncoderOptions
from frossl.train.evaluate import evaluate_run, on_this_device
from frossl.train.ranks import Devices, joined, ranks_here
from frossl.train.side_by_side import evaluate_encoders
from frossl.train.supervised import supervised_encoder


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """What to measure, and on how many ranks."""

    protocol: tuple[str, ...] = defaults("evaluate")
    """what to measure (frossl list metrics)"""
    bank: int = EVALUATED
    """most train images that are used, spread evenly: as bank of kNN, to fit probes and statistics of batch norms"""
    devices: Devices | None = None
    """ranks to start on this machine: so many, or auto for one on each GPU; they share out encoding and fine-tuning"""


@dataclass(frozen=True, kw_only=True)
class Evaluate(MeasureOptions):
    """Evaluate the encoder of a run beside an untrained one and raw pixels, or encoders from anywhere side by side.

    frossl evaluate RUN measures a run on its own data or on --data. frossl evaluate DATA --encoder A B C measures any
    encoders on DATA without training; its options: frossl evaluate --encoder A --help.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """run directory"""
    data: str | None = None
    """other data than the run's own: a folder, Parquet, arrays, or the name of a data set"""
    targets: TargetChoice | None = None
    """what numbers as labels are: classes, or values to predict (as in the run, or auto on other data, if not given)"""
    weights: Weights = "online"
    """averaged measures the moving average that byol, dino and mocov2plus keep too, as an arm beside the trained net"""
    arms: tuple[Literal["supervised"], ...] = ()
    """further arms: supervised trains the same encoder with labels, as long as the run, once; it stays in the run"""
    data_dir: Path | None = None
    """where named data sets are kept (as in the run if not given)"""
    max_pixels: int | None = None
    """most pixels of an image of --data that is read (as in the run if not given)"""
    device: Device = "auto"
    """where to compute"""


@dataclass(frozen=True, kw_only=True)
class EvaluateEncoders(EncoderOptions, MeasureOptions):
    """Measure encoders from anywhere on the same images, without training, beside untrained ones and raw pixels."""

    encoder: tuple[str, ...]
    """RUN, FILE, timm:NAME.TAG, hf-hub:ORG/NAME, FOLDER or lite0"""
    out: Path = Path("runs")
    """where the directory of the report goes"""


def run(args: list[str], console: Console) -> int:
    side = any(arg.partition("=")[0] == "--encoder" for arg in args)
    kind, argv = (EvaluateEncoders, join_sources(args)) if side else (Evaluate, args)
    given = tyro.cli(kind, prog="frossl evaluate", args=argv)
    check(given.protocol, given.bank)
    if isinstance(given, EvaluateEncoders):
        config = Config(data=given.data, size=given.size, device=given.device, **given.data_options())
    else:
        encoder_of(given.run, given.weights)  # before an arm is trained
        config = on_this_device(given.run, replace(read_run(given.run)[0], device=given.device))
    if (ranks := ranks_here(given.devices, config)) > 1:
        return start_ranks(ranks, ["evaluate", *without(args, "--devices")])
    with joined(config) if launched().ranks > 1 else nullcontext():
        console = console if rank() == 0 else Console(quiet=True)
        side_by_side(given, config, console) if isinstance(given, EvaluateEncoders) else one_run(given, console)
    return 0


def one_run(given: Evaluate, console: Console) -> None:
    how: dict[str, Any] = {"data_dir": given.data_dir, "device": given.device, "console": console}
    others = {arm: supervised_encoder(given.run, **how) for arm in given.arms}
    how |= {name: getattr(given, name) for name in ("targets", "max_pixels", "weights", "bank")}
    with logged(console, given.run / LOG) if rank() == 0 else nullcontext():
        evaluate_run(given.run, protocols=given.protocol, source=given.data, others=others, **how)


def side_by_side(given: EvaluateEncoders, config: Config, console: Console) -> None:
    found = evaluate_encoders(
        config, given.encoder, net=given.net, protocols=given.protocol, bank=given.bank, console=console
    )
    show_encoders(console, found)
    if rank() == 0:
        place = given.out / f"{source_name(config.data) or 'data'}-encoders"
        wrote(console, "Report", write_encoders(found, place))


def check(protocol: tuple[str, ...], bank: int) -> None:
    """Raises UserError for unknown metrics, or too small a bank."""
    if not protocol:
        raise UserError(
            f"--protocol: name something to measure: {' '.join(defaults('evaluate'))} (frossl list metrics has all)"
        )
    find_metrics(protocol)
    if bank < 2:
        raise UserError(f"--bank must be at least 2, got {bank}")
