"""``frossl.pretrain``: the command ``frossl pretrain`` as a function, and what it returns."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from frossl.core.config import from_plain
from frossl.core.registry import unknown_name
from frossl.core.types import UserError
from frossl.data import Dataset
from frossl.evals.suite import Evaluation
from frossl.evals.verdict import verdict
from frossl.methods import find_method
from frossl.nn.encoder import EncoderSpec, load_encoder
from frossl.recipes import RECIPES
from frossl.report.arms import arms_of, evaluation_table
from frossl.report.notebook import console_here
from frossl.report.table import Table
from frossl.report.terminal import show_evaluation
from frossl.report.verdict import train_on
from frossl.runs.config import Config
from frossl.runs.directory import begun_run, encoder_of, read_run
from frossl.runs.record import read_record
from frossl.train import pretrain as training


class EvaluationTable(Mapping[str, Mapping[str, float]]):
    """The figures of an encoder and its controls, by arm and name: ``table["pretrained"]["knn"]``.

    Printed it is the table of the command line with its verdict; a notebook shows it as HTML.
    """

    def __init__(self, evaluation: Evaluation, advice: Sequence[str] = ()) -> None:
        self.evaluation, self.advice = evaluation, advice

    def __getitem__(self, arm: str) -> Mapping[str, float]:
        return self.evaluation.arms[arm]

    def __iter__(self) -> Iterator[str]:
        return iter(self.evaluation.arms)

    def __len__(self) -> int:
        return len(self.evaluation.arms)

    @property
    def verdict(self) -> str:
        """A sentence on whether pretraining helped, and what to do if it did not after few epochs."""
        return " ".join((verdict(self.evaluation), *self.advice))

    def __repr__(self) -> str:
        text = io.StringIO()
        console = Console(file=text, width=100, color_system=None, emoji=False, force_jupyter=False)
        show_evaluation(console, self.evaluation, self.advice)
        return text.getvalue().rstrip()

    def _repr_html_(self) -> str:
        table = evaluation_table(arms_of([("", self.evaluation)]), brief=True)
        return f"{_html(table)}<p><b>{escape(self.verdict)}</b></p>"


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run, or one that a signal stopped."""

    run: Path
    """the run directory"""
    report: Path | None
    """the HTML page; None if the run was stopped or the report was not asked for"""
    stopped: str | None
    """the signal that stopped the run, such as SIGINT; ``pretrain(resume=result.run)`` goes on"""
    evaluation: EvaluationTable | None = field(repr=False)
    """the encoder beside its controls; None if the run was stopped or ``evaluate=False``"""
    encoder: nn.Module = field(repr=False)
    """the trained encoder on the CPU, in eval mode: images ``(N, C, S, S)`` to features ``(N, F)``"""
    spec: EncoderSpec = field(repr=False)
    """what the encoder expects: ``size`` S, and ``mean`` and ``std`` of images in [0, 1]"""


def pretrain(
    data: str | Path | Dataset | None = None,
    *,
    backbone: str | nn.Module | None = None,
    resume: Path | str | None = None,
    report: bool = True,
    console: Console | None = None,
    **options: Any,
) -> Result:
    """Trains an encoder on images without labels, evaluates it and writes a report, as ``frossl pretrain`` does.

    Args:
        data: what the command takes as DATA (a folder, a file or the name of a data set), or an opened data set such
            as that of :func:`frossl.data.from_tensors`. A recipe and a run to resume bring their own.
        backbone: the name of a timm model, or a module that maps ``(B, C, H, W)`` to ``(B, F)``. A module is trained
            in place, from the weights it has; its parts in eval mode stay so, unless all of it is.
        resume: a run directory to go on with, or ``"auto"`` for the run called ``name``, if it has begun.
        report: whether to write ``report.html`` into the run directory.
        console: where progress is shown: by default the terminal or the notebook; ``Console(quiet=True)`` is silent.
        **options: the flags of the command, with underscores: ``method="vicreg", length="10min", batch=256``, and
            those of the method, such as ``invariance_weight=1.0``.

    Raises:
        UserError: an option is unknown or cannot be had; the message says what to do.
        NonFiniteError: the loss or its gradient is not a number.
    """
    module = backbone if isinstance(backbone, nn.Module) else None
    opened = data if isinstance(data, Dataset) else None
    if data is not None:
        options["data"] = opened.name if opened else str(data)
    if isinstance(backbone, str):
        options["backbone"] = backbone
    config = configure(resume, options)
    how: dict[str, Any] = {"backbone": module, "data": opened, "resume": resume, "report": report}
    with console_here() as here:
        outcome = training.pretrain(config, **how, console=console or here)
    encoder, spec = load_encoder(encoder_of(outcome.run), module)
    written = report and not outcome.stopped
    measured = outcome.evaluation
    return Result(
        run=outcome.run,
        report=outcome.run / "report.html" if written else None,
        stopped=outcome.stopped,
        evaluation=measured and EvaluationTable(measured, train_on(read_record(outcome.run), measured)),
        encoder=encoder,
        spec=spec,
    )


def configure(resume: Path | str | None, options: Mapping[str, Any]) -> Config[Any]:
    """The configuration of a recipe, a run to resume or the defaults, with ``options``.

    Raises:
        UserError: an option is unknown or of a wrong type, or there are no data.
    """
    recipe = options.get("recipe", "default")
    default = Config(data="") if recipe == "default" else RECIPES[recipe]()
    run = begun_run(replace(default, **_only(options, "name", "out"))) if resume == "auto" else resume
    if run is not None:
        default = read_run(Path(run))[0]
    method = options.get("method", default.method)
    objective = default.objective if method == default.method else find_method(method).Config()
    own = {f.name for f in fields(objective)}
    known = [f.name for f in fields(Config) if f.name != "objective"]
    for name in options:
        if name not in own and name not in known:
            raise unknown_name("option", name, [*known, *own], "see frossl pretrain --help")
    plain = vars(default) | _only(options, *known)
    plain["objective"] = from_plain(type(objective), vars(objective) | _only(options, *own))
    if isinstance(plain["backbone_options"], dict):
        plain["backbone_options"] = json.dumps(plain["backbone_options"])
    config = from_plain(Config, plain)
    if not config.data:
        raise UserError("no data: give a folder of images or the name of a data set, or resume= a run")
    return config


def _only(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in names}


def _html(table: Table) -> str:
    """``table`` as HTML for a notebook."""
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = ""
    for name, *cells in table.rows:
        texts = ((escape(cell.value + cell.margin), cell.best) for cell in cells)
        columns = "".join(f"<td>{f'<b>{text}</b>' if best else text}</td>" for text, best in texts)
        rows += f"<tr><th>{escape(name.value)}</th>{columns}</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
