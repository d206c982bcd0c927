"""The command line: finds the command, prints errors, returns the exit code."""

from __future__ import annotations

import logging
import os
import socket
import sys
import traceback
import warnings
from importlib import import_module
from io import TextIOWrapper
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape

from frossl import __version__
from frossl.core.distributed import LOST, RankError, exit_process, lost_rank, world_size
from frossl.core.files import CONTROLS
from frossl.core.registry import unknown_name
from frossl.core.types import UserError
from frossl.train.step import NonFiniteError

COMMANDS = {
    "pretrain": ("DATA [...]", "a folder of images, Parquet, or data by name"),
    "evaluate": ("RUN [...]", "kNN and linear probes beside the controls"),
    "compare": ("DATA [...]", "methods, seeds, budgets: what may be said"),
    "embed": ("DATA [-o FILE]", "a vector for every image, as Parquet or .npz"),
    "explore": ("DATA [-o FOLDER]", "near-duplicates, outliers, labels to check"),
    "predict": ("DATA --labels T", "labels for all images from a few"),
    "report": ("RUN... [-o FILE]", "runs as one HTML file, with their curves"),
    "export": ("RUN FILE [...]", "weights for timm, torchvision; ONNX"),
    "publish": ("RUN --to PLACE", "a folder or hf:ORG/NAME, with a model card"),
    "replay": ("RUN", "take the step again that was not finite"),
    "views": ("DATA [-o FILE]", "what a view recipe makes of some images"),
    "cache": ("DATA --size N", "decode images once, into a store"),
    "data": ("prepare NAME SOURCE", "ImageNet-100, Tiny ImageNet, as downloaded"),
    "bench": ("views|train|loss", "where the time goes on this machine"),
    "list": ("methods | data | recipes | metrics", ""),
}
"""The modules of :mod:`frossl.commands`, each with its usage and what it is for."""
EXIT_CODES = {UserError: 2, NonFiniteError: 3, RankError: LOST}


def main(argv: list[str] | None = None) -> None:
    """Entry point: a wrong input ends with its message and code 2, never a traceback."""
    argv = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # file names may be in another encoding
    _prepare_process()
    console = Console(emoji=False)
    try:
        if not argv or argv[0] in ("-h", "--help"):
            _print_overview(console)
            code = 0 if argv else 2
        elif argv[0] == "--version":
            console.print(__version__, highlight=False)
            code = 0
        elif argv[0] not in COMMANDS:
            raise unknown_name("command", argv[0], list(COMMANDS))
        else:
            code = import_module(f"frossl.commands.{argv[0]}").run(argv[1:], console)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        code = _print_error(lost_rank(error) or error)
    exit_process(code)


class _PipeSafe:
    """A stream that drops its output once nobody reads it: a closed terminal or ``| head`` must not end a run."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self._discard()

    def _discard(self) -> None:
        """Sends what is still buffered, and all that follows, to the null device."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.stream.fileno())
        os.close(null)


def _prepare_process() -> None:
    """Settings of the process that the command line may choose, but a program that imports the package must not get."""
    if sys.stdout is sys.__stdout__:
        sys.stdout, sys.stderr = _PipeSafe(sys.stdout), _PipeSafe(sys.stderr)  # type: ignore[assignment]
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    socket.setdefaulttimeout(60)  # ends downloads that stall
    # Silence DDP's init_sync_buffers warning: buffers are synchronised on purpose.
    warnings.filterwarnings("ignore", message="(?s).*init_sync_buffers")
    # Set on the modules' own loggers: the packages set their level when they are imported later.
    for package in ("lightning_fabric", "lightning.fabric"):
        for module in ("rank_zero", "distributed"):
            logging.getLogger(f"{package}.utilities.{module}").setLevel(logging.WARNING)


def _print_error(error: Exception) -> int:
    """Prints the message of an expected error and returns its exit code; raises others, unless there are more ranks."""
    code = next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), None)
    if code is not None:
        text = escape(str(error)).translate(CONTROLS)
        Console(stderr=True, emoji=False).print(f"[bold red]frossl:[/] {text}", highlight=False)
        return code
    if world_size() == 1:
        raise error
    traceback.print_exception(error)
    return 1


def _print_overview(console: Console) -> None:
    rows = (f"  {f'frossl {name} {usage}':32}{text}".rstrip() for name, (usage, text) in COMMANDS.items())
    lines = [
        "[bold]frossl[/]: self-supervised pretraining of image encoders with many views\n",
        *map(escape, rows),
        "\nEach takes --help. A first try: frossl pretrain path/to/images",
    ]
    console.print("\n".join(lines), highlight=False)


if __name__ == "__main__":
    main()
