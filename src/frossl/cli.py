"""The command line: ``frossl pretrain | evaluate | report | export | replay | list``."""

from __future__ import annotations

import dataclasses
import inspect
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from frossl import __version__
from frossl.core.dist import RankError
from frossl.core.files import CONTROLS
from frossl.core.registry import unknown_name
from frossl.core.types import UserError
from frossl.data import DATASETS
from frossl.evals import METRICS
from frossl.evals.suite import AUGMENTED, PROTOCOLS
from frossl.methods import METHODS, find_method
from frossl.recipes import RECIPES
from frossl.report.page import show, write_report
from frossl.train.config import Config
from frossl.train.export import export_encoder
from frossl.train.replay import replay
from frossl.train.run import evaluate_run, pretrain, read_run
from frossl.train.step import NonFiniteError
from frossl.views.recipes import VIEWS

M = TypeVar("M")
FREE_TO_CHANGE = (
    "device",
    "workers",
    "monitor_every",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "activation_checkpointing",
    "rank_timeout",
    "evaluate",
    "data_dir",
)
"""What may differ when a run is resumed: it does not change what is learned."""


@dataclass(frozen=True, kw_only=True)
class Pretrain(Generic[M]):
    """Pretrain an encoder on images without labels, then compare it with an untrained one and with raw pixels."""

    config: Config[M]
    resume: Path | None = None
    """go on with the newest checkpoint of this run directory; its configuration holds"""
    open: bool = False
    """open the report in a browser at the end, where there is a display"""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate the encoder of a run beside an untrained one and raw pixels."""

    run: tyro.conf.Positional[Path]
    """run directory"""
    data: str | None = None
    """other data than the run's own: a folder, Parquet, or the name of a data set"""
    protocol: tuple[str, ...] = PROTOCOLS
    """what to measure (frossl list metrics)"""
    data_dir: Path | None = None
    """where named data sets are kept (as in the run if not given)"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to compute"""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write what is known of one or several runs, side by side, as one HTML file that needs no network."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """run directories"""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """file to write (report.html, in the run directory if there is one run)"""
    open: bool = False
    """open it in a browser, where there is a display"""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the encoder of a run for use elsewhere, and say how to load it there."""

    run: tyro.conf.Positional[Path]
    """run directory"""
    output: tyro.conf.Positional[Path]
    """file to write, .safetensors"""
    format: Annotated[Literal["timm", "torchvision"], tyro.conf.arg(help_behavior_hint="")] = "timm"
    """names of the keys: timm's, or torchvision's for nets that both have"""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Take the step of a run again whose loss or gradient was not finite, and look for the cause."""

    run: tyro.conf.Positional[Path]
    """run directory"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to compute"""


@dataclass(frozen=True, kw_only=True)
class List:
    """What there is to choose from."""

    what: tyro.conf.Positional[Literal["methods", "data", "recipes", "metrics"]]
    """kind of thing"""


def main(argv: list[str] | None = None) -> None:
    """Entry point: a wrong input ends with its message and code 2, never a traceback."""
    argv = sys.argv[1:] if argv is None else argv
    console = Console()
    commands: dict[str, Callable[[list[str], Console], int]] = {
        "pretrain": _pretrain,
        "evaluate": _evaluate,
        "report": _report,
        "export": _export,
        "replay": _replay,
        "list": _list,
    }
    try:
        if not argv or argv[0] in ("-h", "--help"):
            _overview(console)
            code = 0 if argv else 2
        elif argv[0] == "--version":
            console.print(__version__, highlight=False)
            code = 0
        elif argv[0] not in commands:
            raise unknown_name("command", argv[0], list(commands))
        else:
            code = commands[argv[0]](argv[1:], console)
    except KeyboardInterrupt:
        code = 130
    except (UserError, NonFiniteError, RankError) as error:
        Console(stderr=True).print(f"[bold red]frossl:[/] {escape(str(error)).translate(CONTROLS)}", highlight=False)
        code = 2 if isinstance(error, UserError) else 3 if isinstance(error, NonFiniteError) else 4
    sys.exit(code)


def _overview(console: Console) -> None:
    console.print(
        "[bold]frossl[/]: self-supervised pretraining of image encoders with many views\n\n"
        "  frossl pretrain DATA [...]      a folder of images, Parquet, or a data set by name\n"
        "  frossl evaluate RUN [...]       kNN and linear probes beside an untrained encoder and raw pixels\n"
        "  frossl report RUN... [-o FILE]  curves, spectra and pictures of runs as one HTML file\n"
        "  frossl export RUN FILE [...]    weights for timm or torchvision\n"
        "  frossl replay RUN               take the step again that was not finite\n"
        "  frossl list methods | data | recipes | metrics\n\n"
        "Each takes --help. A first try: frossl pretrain path/to/images",
        highlight=False,
    )


def _pretrain(args: list[str], console: Console) -> int:
    resume, recipe, method = (_peek(args, flag) for flag in ("--resume", "--recipe", "--method"))
    saved = None if resume is None else read_run(Path(resume))[0]
    if saved is not None:
        default = saved
    elif recipe is not None and recipe != "default":
        default = RECIPES[recipe]()
    else:
        default = Config(data=tyro.MISSING)
    if method is not None and method != default.method:
        default = dataclasses.replace(default, method=method, objective=find_method(method).Config())
    kind = Pretrain[type(default.objective)]
    given = tyro.cli(
        kind,
        prog="frossl pretrain",
        args=args,
        default=Pretrain(config=default),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    if saved is not None:
        _refuse_changes(saved, given.config)
    outcome = pretrain(given.config, resume=given.resume, console=console)
    if given.open and outcome.evaluation is not None:
        _open(outcome.run / "report.html", console)
    return 128 + signal.Signals[outcome.stopped] if outcome.stopped else 0


def _peek(args: list[str], flag: str) -> str | None:
    """The value of ``flag``, which decides what other flags there are, before they are parsed."""
    for i, arg in enumerate(args):
        if arg == flag and i + 1 < len(args):
            return args[i + 1]
        if arg.startswith(f"{flag}="):
            return arg.partition("=")[2]
    return None


def _refuse_changes(saved: Config, given: Config) -> None:
    def differences(one: Any, other: Any) -> list[str]:
        names = [f.name for f in dataclasses.fields(one)]
        return [name for name in names if name not in FREE_TO_CHANGE and getattr(one, name) != getattr(other, name)]

    names = [name for name in differences(saved, given) if name != "objective"]
    if saved.method == given.method:
        names += differences(saved.objective, given.objective)
    changed = ["DATA" if name == "data" else f"--{name.replace('_', '-')}" for name in names]
    if changed:
        raise UserError(
            f"a resumed run keeps its configuration; {', '.join(changed)} would make it another run. Leave that out, "
            f"or start a new run without --resume. Free to change: {', '.join(FREE_TO_CHANGE).replace('_', '-')}"
        )


def _evaluate(args: list[str], console: Console) -> int:
    given = tyro.cli(Evaluate, prog="frossl evaluate", args=args)
    evaluate_run(
        given.run,
        source=given.data,
        protocols=given.protocol,
        data_dir=given.data_dir,
        device=given.device,
        console=console,
    )
    return 0


def _report(args: list[str], console: Console) -> int:
    given = tyro.cli(Report, prog="frossl report", args=args)
    if not given.runs:
        raise UserError("name at least one run directory: frossl report runs/NAME")
    output = given.output or (given.runs[0] if len(given.runs) == 1 else Path()) / "report.html"
    with console.status("") as status:
        write_report(given.runs, output, log=status.update)
    console.print(f"[bold]Report[/] {escape(str(output))}", soft_wrap=True)
    if given.open:
        _open(output, console)
    return 0


def _open(report: Path, console: Console) -> None:
    if not show(report):
        console.print(f"no display here to open it; take {escape(str(report))} to a browser", style="dim")


def _export(args: list[str], console: Console) -> int:
    given = tyro.cli(Export, prog="frossl export", args=args)
    console.print(export_encoder(given.run, given.output, given.format), highlight=False, markup=False)
    return 0


def _replay(args: list[str], console: Console) -> int:
    given = tyro.cli(Replay, prog="frossl replay", args=args)
    replay(given.run, device=given.device, console=console)
    return 0


def _list(args: list[str], console: Console) -> int:
    given = tyro.cli(List, prog="frossl list", args=args)
    table = Table(box=None, pad_edge=False, show_header=False)
    rows: dict[str, Callable[[], list[tuple[str, str]]]] = {
        "methods": lambda: [(name, _first_line(method)) for name, method in METHODS.items()],
        "metrics": lambda: (
            [(name, m.protocol) for name, m in METRICS.items()]
            + [(AUGMENTED, "the paper's linear probe with augmented images, 100 epochs of SGD; not run by default")]
        ),
        "data": lambda: [
            (name, f"{r.train:,} + {r.test:,} images, {r.class_count} classes; {r.licence}")
            for name, r in DATASETS.items()
        ],
        "recipes": lambda: [(name, _first_line(recipe)) for name, recipe in RECIPES.items()],
    }
    for name, text in rows[given.what]():
        table.add_row(f"[bold]{escape(name)}[/]  ", escape(text))
    console.print(table, highlight=False)
    if given.what == "recipes":
        console.print(f"\nView recipes for --view-recipe: {', '.join(VIEWS)}", highlight=False)
    return 0


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
