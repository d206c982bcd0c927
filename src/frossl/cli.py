"""The command line: finds the command, says errors, gives the exit code."""

from __future__ import annotations

import logging
import os
import socket
import sys
import traceback
import warnings
from io import TextIOWrapper
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape

from frossl import __version__
from frossl.commands import (
    bench,
    cache,
    compare,
    data,
    embed,
    evaluate,
    explore,
    export,
    predict,
    pretrain,
    publish,
    replay,
    report,
    views,
)
from frossl.commands import list as listing
from frossl.core.distributed import LOST, RankError, exit_process, lost_rank, world_size
from frossl.core.files import CONTROLS
from frossl.core.registry import unknown_name
from frossl.core.types import UserError
from frossl.train.step import NonFiniteError

COMMANDS = {
    "pretrain": pretrain,
    "evaluate": evaluate,
    "compare": compare,
    "embed": embed,
    "explore": explore,
    "predict": predict,
    "report": report,
    "export": export,
    "publish": publish,
    "replay": replay,
    "views": views,
    "cache": cache,
    "data": data,
    "bench": bench,
    "list": listing,
}


def main(argv: list[str] | None = None) -> None:
    """Entry point: a wrong input ends with its message and code 2, never a traceback."""
    argv = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names of files may be in another code
    _prepare_process()
    console = Console(emoji=False)
    try:
        if not argv or argv[0] in ("-h", "--help"):
            _overview(console)
            code = 0 if argv else 2
        elif argv[0] == "--version":
            console.print(__version__, highlight=False)
            code = 0
        elif argv[0] not in COMMANDS:
            raise unknown_name("command", argv[0], list(COMMANDS))
        else:
            code = COMMANDS[argv[0]].run(argv[1:], console)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        code = _say(lost_rank(error) or error)
    exit_process(code)


class _Lasting:
    """A stream that drops what it gets once nobody reads it: a closed terminal or ``| head`` must not end a run."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError:
            return self._drop(len(text))

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self._drop()

    def _drop(self, size: int = 0) -> int:
        """Lets what is still in buffers, and all that follows, go nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)
        return size


def _prepare_process() -> None:
    """What may be set for a process of the command line, and not for those who import the package."""
    if sys.stdout is sys.__stdout__:
        sys.stdout, sys.stderr = _Lasting(sys.stdout), _Lasting(sys.stderr)  # type: ignore[assignment]
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    socket.setdefaulttimeout(60)  # a download that stalls is given up
    # DDP's buffers are synchronised on purpose, and the plan has said what Fabric would say.
    warnings.filterwarnings("ignore", message="(?s).*init_sync_buffers")
    # The packages set their own level when they are imported, so it is that of what speaks.
    for package in ("lightning_fabric", "lightning.fabric"):
        for room in ("rank_zero", "distributed"):
            logging.getLogger(f"{package}.utilities.{room}").setLevel(logging.WARNING)


def _say(error: Exception) -> int:
    """Says what went wrong and gives the exit code; raises what only a traceback tells, but among several ranks."""
    codes: dict[type[Exception], int] = {UserError: 2, NonFiniteError: 3, RankError: LOST}
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
        "  frossl embed DATA [-o FILE]     a vector for every image, as Parquet or .npz\n"
        "  frossl explore DATA [-o FOLDER] near-duplicates, outliers, labels to check\n"
        "  frossl predict DATA --labels T  labels for all images from a few\n"
        "  frossl report RUN... [-o FILE]  runs as one HTML file, with their curves\n"
        "  frossl export RUN FILE [...]    weights for timm, torchvision; ONNX\n"
        "  frossl publish RUN --to PLACE   a folder or hf:ORG/NAME, with a model card\n"
        "  frossl replay RUN               take the step again that was not finite\n"
        "  frossl views DATA [-o FILE]     what a view recipe makes of some images\n"
        "  frossl cache DATA --size N      decode images once, into a store\n"
        "  frossl data prepare NAME SOURCE ImageNet-100, Tiny ImageNet, as downloaded\n"
        "  frossl bench views|train|loss   where the time goes on this machine\n"
        "  frossl list methods | data | recipes | metrics\n\n"
        "Each takes --help. A first try: frossl pretrain path/to/images",
        highlight=False,
    )


if __name__ == "__main__":
    main()
