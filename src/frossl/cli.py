"""The command line: ``frossl pretrain | evaluate | compare | report | views | cache | bench | list | ...``."""

from __future__ import annotations

import dataclasses
import inspect
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from frossl import __version__
from frossl.core.dist import RankError, leave, lost_rank, world_size
from frossl.core.files import CONTROLS, write_atomically
from frossl.core.registry import unknown_name
from frossl.core.types import UserError
from frossl.data import DATASETS
from frossl.evals import ENCODER_METRICS, METRICS, find_metric
from frossl.evals.suite import PROTOCOLS
from frossl.methods import METHODS
from frossl.recipes import RECIPES
from frossl.report.comparison import show_comparison
from frossl.report.comparison_page import write_comparison
from frossl.report.contact import contact_sheet
from frossl.report.page import show, write_report
from frossl.train import compare
from frossl.train.bench import Bench, bench
from frossl.train.config import Config, make_plan
from frossl.train.directory import read_run
from frossl.train.export import export_encoder
from frossl.train.replay import replay
from frossl.train.run import evaluate_run, pretrain
from frossl.train.run import open as open_run_data
from frossl.train.step import NonFiniteError
from frossl.train.supervised import supervised_encoder
from frossl.views.recipes import VIEWS, summary

M = TypeVar("M")


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

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """run directory"""
    data: str | None = None
    """other data than the run's own: a folder, Parquet, arrays, or the name of a data set"""
    protocol: tuple[str, ...] = PROTOCOLS
    """what to measure (frossl list metrics)"""
    arms: tuple[Literal["supervised"], ...] = ()
    """further arms: supervised trains the same encoder with labels, as long as the run, once; it stays in the run"""
    data_dir: Path | None = None
    """where named data sets are kept (as in the run if not given)"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to compute"""


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Pretrain several arms with several seeds at an equal budget and say what the outcome supports.

    Takes DATA and every option of frossl pretrain beside these, for all arms: frossl compare cifar10 --recipe
    cifar10-cpu --arms frossl:4 vicreg "vicreg --lr 1e-3" --seeds 3 --budget 10min 20ep --batch 256. What is finished
    is not run again, so the same command goes on where it was stopped, and more arms, seeds or budgets can be added.
    """

    methods: tuple[str, ...] = ()
    """objectives to compare, each with every number of --views"""
    views: tuple[int, ...] = ()
    """numbers of views per image for --methods (the view recipe's number if not given)"""
    arms: tuple[str, ...] = ()
    """arms one by one: METHOD, METHOD:VIEWS, or either with options of its own, in quotes"""
    seeds: int = 3
    """how often each arm is run, with seeds from 0"""
    budget: tuple[str, ...] = ()
    """length of every run: 20ep, 1e6img, 1e6view (forward passes of the encoder), 10min; several are several races"""
    target: float | None = None
    """accuracy of the monitor's kNN to be reached (the best of the worst run if not given)"""
    protocol: tuple[str, ...] = compare.PROTOCOLS
    """what to measure of every encoder at the end (frossl list metrics)"""
    out: Path = Path("runs/comparison")
    """directory of the comparison, with a directory for each run"""
    dry_run: bool = False
    """check everything and list the runs and how they stand, but run nothing"""
    commands: bool = False
    """print a command for each run that is not over, for a cluster; frossl report DIRECTORY gathers what they did"""
    only: str | None = None
    """carry out this run alone, in this process"""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write what is known of one or several runs, side by side, as one HTML file that needs no network."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN...")]
    """run directories, or the directory of a comparison"""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """file to write (report.html, in the run directory if there is one run)"""
    open: bool = False
    """open it in a browser, where there is a display"""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the encoder of a run for use elsewhere, and say how to load it there."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """run directory"""
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """file to write, .safetensors"""
    format: Annotated[Literal["timm", "torchvision"], tyro.conf.arg(help_behavior_hint="")] = "timm"
    """names of the keys: timm's, or torchvision's for nets that both have"""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Take the step of a run again whose loss or gradient was not finite, and look for the cause."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """run directory"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to compute"""


@dataclass(frozen=True, kw_only=True)
class Views:
    """Show what a view recipe makes of a few images, with what was drawn for each view, in one picture."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """a folder of images, Parquet, arrays (.npy, .npz), or the name of a data set"""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("views.png")
    """picture to write"""
    images: int = 4
    """how many images, one in each row"""
    view_recipe: str = "auto"
    """augmentation (frossl list recipes); auto by the channels of the data"""
    views: int | None = None
    """views per image (the recipe's number if not given)"""
    size: int | None = None
    """side of the views in pixels, as in frossl pretrain"""
    channels: Literal[1, 3] | None = None
    """read images as grey (1) or colour (3)"""
    seed: int = 0
    """of the views"""
    data_dir: Path = Path("data")
    """where named data sets are kept"""


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Decode images once into a memory-mapped store; frossl pretrain --cache SIZE then reads that one."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """a folder of images or Parquet"""
    size: int
    """shorter side in pixels; smaller images stay as they are"""
    channels: Literal[1, 3] | None = None
    """store grey (1) or colour (3); by default 1 if all images are grey"""
    data_dir: Path = Path("data")
    """the store goes into the folder cache in it"""


@dataclass(frozen=True, kw_only=True)
class List:
    """What there is to choose from."""

    what: tyro.conf.Positional[Literal["methods", "data", "recipes", "metrics"]]
    """kind of thing"""


def main(argv: list[str] | None = None) -> None:
    """Entry point: a wrong input ends with its message and code 2, never a traceback."""
    argv = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names of files may be in another code
    console = Console(emoji=False)
    commands: dict[str, Callable[[list[str], Console], int]] = {
        "pretrain": _pretrain,
        "evaluate": _evaluate,
        "compare": _compare,
        "report": _report,
        "export": _export,
        "replay": _replay,
        "views": _views,
        "cache": _cache,
        "bench": _bench,
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
    except Exception as error:
        code = _say(lost_rank(error) or error)
    leave(code)


def _say(error: Exception) -> int:
    """Says what went wrong and gives the exit code; raises what only a traceback tells, but among several ranks."""
    codes: dict[type[Exception], int] = {UserError: 2, NonFiniteError: 3, RankError: 4}
    code = next((code for kind, code in codes.items() if isinstance(error, kind)), None)
    if code is not None:
        Console(stderr=True, emoji=False).print(
            f"[bold red]frossl:[/] {escape(str(error)).translate(CONTROLS)}", highlight=False
        )
        return code
    if world_size() == 1:
        raise error
    traceback.print_exception(error)
    return 1


def _overview(console: Console) -> None:
    console.print(
        "[bold]frossl[/]: self-supervised pretraining of image encoders with many views\n\n"
        "  frossl pretrain DATA [...]      a folder of images, Parquet, or data by name\n"
        "  frossl evaluate RUN [...]       kNN and linear probes beside the controls\n"
        "  frossl compare DATA [...]       methods, seeds, budgets: what may be said\n"
        "  frossl report RUN... [-o FILE]  runs as one HTML file, with their curves\n"
        "  frossl export RUN FILE [...]    weights for timm or torchvision\n"
        "  frossl replay RUN               take the step again that was not finite\n"
        "  frossl views DATA [-o FILE]     what a view recipe makes of some images\n"
        "  frossl cache DATA --size N      decode images once, into a store\n"
        "  frossl bench views|train|loss   where the time goes on this machine\n"
        "  frossl list methods | data | recipes | metrics\n\n"
        "Each takes --help. A first try: frossl pretrain path/to/images",
        highlight=False,
    )


def _pretrain(args: list[str], console: Console) -> int:
    given = _parse_pretrain(args, "frossl pretrain")
    outcome = pretrain(given.config, resume=given.resume, console=console)
    if given.open and not outcome.stopped:
        _open(outcome.run / "report.html", console)
    return 128 + signal.Signals[outcome.stopped] if outcome.stopped else 0


def _parse_pretrain(args: list[str], prog: str) -> Pretrain[Any]:
    resume, recipe, method = (_peek(args, flag) for flag in ("--resume", "--recipe", "--method"))
    saved = None if resume is None else read_run(Path(resume))[0]
    if saved is not None:
        default = saved
    elif recipe is not None and recipe != "default":
        default = RECIPES[recipe]()
    else:
        default = Config(data=tyro.MISSING)
    if method is not None and method != default.method:
        default = dataclasses.replace(default, method=method, objective=None)
    kind = Pretrain[type(default.objective)]
    given = tyro.cli(
        kind,
        prog=prog,
        args=args,
        default=Pretrain(config=default),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    return given


def _peek(args: list[str], flag: str) -> str | None:
    """The last value of ``flag``, which decides what other flags there are, before they are parsed."""
    found = None
    for i, arg in enumerate(args):
        if arg == flag and i + 1 < len(args):
            found = args[i + 1]
        elif arg.startswith(f"{flag}="):
            found = arg.partition("=")[2]
    return found


def _evaluate(args: list[str], console: Console) -> int:
    given = tyro.cli(Evaluate, prog="frossl evaluate", args=args)
    if not given.protocol:
        raise UserError(f"--protocol: name something to measure: {' '.join(PROTOCOLS)} (frossl list metrics has all)")
    for name in given.protocol:
        find_metric(name)
    others = {}
    if "supervised" in given.arms:
        others["supervised"] = supervised_encoder(
            given.run, data_dir=given.data_dir, device=given.device, console=console
        )
    evaluate_run(
        given.run,
        source=given.data,
        protocols=given.protocol,
        others=others,
        data_dir=given.data_dir,
        device=given.device,
        console=console,
    )
    return 0


_DECIDED = ("--method", "--seed", "--length", "--name", "--resume", "--evaluate", "--no-evaluate", "--open")
"""Options of pretrain that a comparison sets for each run itself."""


def _compare(args: list[str], console: Console) -> int:
    given, rest = tyro.cli(Compare, prog="frossl compare", args=args, return_unknown_args=True)
    taken = [flag for flag in _DECIDED if any(arg.partition("=")[0] == flag for arg in rest)]
    if taken:
        raise UserError(f"{', '.join(taken)}: frossl compare sets this for each run; see frossl compare --help")
    arms = [f"{m}:{v}" for m in given.methods for v in given.views] if given.views else list(given.methods)
    arms += given.arms
    if not arms or given.seeds < 1 or not given.budget:
        raise UserError(
            "give the data first, then at least one arm (--methods or --arms), one --budget and one of --seeds: frossl "
            "compare cifar10 --methods frossl vicreg --budget 10min"
        )

    def configure(options: list[str]) -> Config[Any]:
        return _parse_pretrain([*rest, *options], "frossl compare").config

    runs = compare.plan_runs(arms, given.budget, given.seeds, configure, given.out)
    if given.only is not None:
        names = {run.name: run for run in runs}
        if given.only not in names:
            raise unknown_name("run of this comparison", given.only, list(names))
        stopped = compare.carry_out(names[given.only], given.protocol, console)
        return 128 + signal.Signals[stopped] if stopped else 0
    quiet = Console(quiet=True) if given.commands else console
    compare.check(runs, given.protocol, quiet)
    states = {run.name: run.state(given.protocol) for run in runs}
    if given.dry_run:
        for name, state in states.items():
            console.print(f"{state:9} {escape(name)}", highlight=False, soft_wrap=True)
        return 0
    again = [arg for arg in args if arg != "--commands"]
    compare.keep_plan(runs, shlex.join(["frossl", "compare", *again]), given.target)
    if given.commands:
        for name, state in states.items():
            if state in ("started", "to do"):
                print(shlex.join(["frossl", "compare", *again, "--only", name]))
        return 0
    failed, stopped = compare.carry_out_all(
        runs,
        given.protocol,
        lambda run: [sys.executable, "-m", "frossl.cli", "compare", *again, "--only", run.name],
        console,
        lambda: write_comparison(given.out),
    )
    study = write_comparison(given.out)
    show_comparison(console, study)
    _tell_report(given.out / "comparison.html", False, console)
    return 128 + signal.Signals[stopped] if stopped else 1 if failed else 0


def _report(args: list[str], console: Console) -> int:
    given = tyro.cli(Report, prog="frossl report", args=args)
    if not given.runs:
        raise UserError("name at least one run directory: frossl report runs/NAME")
    if len(given.runs) == 1 and (given.runs[0] / "comparison.json").exists():
        if given.output is not None:
            raise UserError(f"-o {given.output}: the report of a comparison stands beside its runs; leave -o out")
        show_comparison(console, write_comparison(given.runs[0]))
        _tell_report(given.runs[0] / "comparison.html", given.open, console)
        return 0
    output = given.output or (given.runs[0] if len(given.runs) == 1 else Path()) / "report.html"
    with console.status("") as status:
        write_report(given.runs, output, log=status.update)
    _tell_report(output, given.open, console)
    return 0


def _tell_report(report: Path, in_browser: bool, console: Console) -> None:
    console.print(f"[bold]Report[/] {escape(str(report))}", soft_wrap=True)
    if in_browser:
        _open(report, console)


def _open(report: Path, console: Console) -> None:
    if not show(report):
        console.print(f"no display here to open it; take {escape(str(report))} to a browser", style="dim")


def _export(args: list[str], console: Console) -> int:
    given = tyro.cli(Export, prog="frossl export", args=args)
    print(export_encoder(given.run, given.output, given.format))
    return 0


def _replay(args: list[str], console: Console) -> int:
    given = tyro.cli(Replay, prog="frossl replay", args=args)
    replay(given.run, device=given.device, console=console)
    return 0


def _views(args: list[str], console: Console) -> int:
    given = tyro.cli(Views, prog="frossl views", args=args)
    if given.images < 1:
        raise UserError(f"--images must be at least 1, got {given.images}")
    if given.output.suffix.lower() != ".png":
        raise UserError(f"-o {given.output}: the picture is a PNG; give a name that ends in .png")
    if not given.output.parent.is_dir():
        raise UserError(f"-o {given.output}: there is no directory {given.output.parent}; make it first")
    names = ("data", "view_recipe", "views", "size", "channels", "seed", "data_dir")
    config = Config(**{name: getattr(given, name) for name in names}, device="cpu")
    data = open_run_data(config, console)
    recipe = make_plan(dataclasses.replace(config, batch=2), data).recipe
    sheet = contact_sheet(data, recipe, images=given.images, seed=given.seed)
    write_atomically(given.output, lambda path: sheet.save(path, "PNG"))
    console.print(f"[bold]Views[/] {escape(str(given.output))}", soft_wrap=True)
    return 0


def _cache(args: list[str], console: Console) -> int:
    given = tyro.cli(Cache, prog="frossl cache", args=args)
    names = ("data", "channels", "data_dir")
    config = Config(**{name: getattr(given, name) for name in names}, cache=given.size)
    data = open_run_data(config, console)
    again = ["frossl", "pretrain", given.data, "--cache", str(given.size)]
    again += [] if given.channels is None else ["--channels", str(given.channels)]
    again += [] if given.data_dir == Path("data") else ["--data-dir", str(given.data_dir)]
    console.print(
        f"{len(data.train) + len(data.test):,} images are stored below {escape(str(given.data_dir / 'cache'))}. "
        f"Use them: {escape(shlex.join(again))}",
        soft_wrap=True,
        highlight=False,
    )
    return 0


def _bench(args: list[str], console: Console) -> int:
    given = tyro.cli(Bench, prog="frossl bench", args=args)
    table = Table(box=None, pad_edge=False, title=None)
    headings, rows = bench(given)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == headings[0] else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table, highlight=False)
    return 0


def _list(args: list[str], console: Console) -> int:
    given = tyro.cli(List, prog="frossl list", args=args)
    table = Table(box=None, pad_edge=False, show_header=False)
    rows: dict[str, Callable[[], list[tuple[str, str]]]] = {
        "methods": lambda: [(name, _first_line(method)) for name, method in METHODS.items()],
        "metrics": lambda: [
            (name, m.protocol + ("" if name in PROTOCOLS else "; not by default"))
            for name, m in (*METRICS.items(), *ENCODER_METRICS.items())
        ],
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
        views = Table(box=None, pad_edge=False, show_header=False)
        for name in VIEWS:
            views.add_row(f"[bold]{escape(name)}[/]  ", escape(summary(name)))
        console.print("\nWhat views are made of, for --view-recipe:\n", views, highlight=False)
    return 0


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
