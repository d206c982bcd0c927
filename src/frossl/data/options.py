"""The options of data, each said once: for Python, for the command line and for the files of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from frossl.core.types import UserError

Log = Callable[[str], None]
TargetChoice = Literal["auto", "classes", "values"]


def quiet(message: str) -> None:
    """A log that drops its messages."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How images are opened. Configurations and commands that open data inherit from it."""

    labels: bool = True
    """use labels for evaluation where there are any; sub-folders are classes"""
    targets: TargetChoice = "auto"
    """what numbers as labels are: classes, or values to predict such as ages; auto goes by how many differ"""
    channels: Literal[1, 3] | None = None
    """read images as grey (1) or colour (3); by default 1 if all are grey"""
    held_out: float = 0.1
    """share of the images kept for evaluation where the data bring no test split"""
    seed: int = 0
    """of everything random"""
    workers: int | None = None
    """processes that decode images that do not fit in memory (one per core if not given)"""
    cache: int | None = None
    """decode images of files once, to this shorter side in pixels, into a memory-mapped store below --data-dir"""
    data_dir: Path = Path("data")
    """where named data sets are kept, and caches of others"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "data_dir", Path(self.data_dir))
        if self.targets not in get_args(TargetChoice):
            raise UserError(f"--targets {self.targets}: give classes, values, or auto")
        if self.channels not in (None, 1, 3):
            raise UserError(f"--channels {self.channels}: give 1 (grey), 3 (colour), or none to choose by the images")
        if not 0 < self.held_out < 1:
            raise UserError(f"--held-out is a share between 0 and 1, for example 0.1; got {self.held_out}")
        for name, least in (("seed", 0), ("workers", 0), ("cache", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name} must be at least {least}, got {value}")

    def data_options(self) -> dict[str, Any]:
        """The options of data alone, by name, of a subclass that has others too."""
        return {field.name: getattr(self, field.name) for field in fields(DataOptions)}


@dataclass(frozen=True, kw_only=True)
class Opening(DataOptions):
    """All that :func:`frossl.data.open_data` takes: the options of data, and two that only Python has."""

    memory_limit: int = 2 * 2**30
    """images of one size that take at most so many bytes are decoded at once, others at each access"""
    log: Log = quiet
    """gets a line about what takes long"""
