"""The options of data, each said once: for Python, for the command line and for the files of a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from frossl.core.types import UserError

Log = Callable[[str], None]
TargetChoice = Literal["auto", "classes", "values"]

COLUMNS = ("label_column", "image_column", "group")
"""Options that name columns or parts of names, which other data may not have."""


def quiet(message: str) -> None:
    """A log that drops its messages."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How images are opened. Configurations and commands that open data inherit from it."""

    labels: bool = True
    """use labels for evaluation where there are any; sub-folders are classes"""
    targets: TargetChoice = "auto"
    """what numbers as labels are: classes, or values to predict such as ages; auto goes by how many differ"""
    label_column: str | None = None
    """column of a table, of Parquet or of the .json of shards that holds labels (found if only one can be)"""
    image_column: str | None = None
    """column of Parquet that holds images, or of a table that names them (found if only one can be)"""
    group: str | None = None
    """hold out whole patients, videos or bursts: a column, or a regular expression whose first group is their name"""
    channels: int | None = None
    """read images as grey (1), as colour (3), or so many of their first channels; as they are if not given"""
    range: tuple[float, ...] | None = None
    """intensities that become black and white: LOW HIGH, or a pair for each channel (measured if not given)"""
    pages: Literal["channels", "first"] | None = None
    """what the pages of a TIFF are; by default channels, where there are as many in every file and at most 8"""
    axes: str | None = None
    """order of the axes of arrays where it is in doubt: NHWC, NCHW, HWCN, NHW, HWN"""
    held_out: float = 0.1
    """share of the images kept for evaluation where the data bring no test split"""
    seed: int = 0
    """of everything random"""
    workers: int | None = None
    """processes that decode images that do not fit in memory (one per core if not given)"""
    cache: int | None = None
    """decode images of files once, to this shorter side in pixels, into a memory-mapped store below --data-dir"""
    max_pixels: int | None = None
    """most pixels of an image that is read (178,956,970, twice Pillow's limit, if not given)"""
    check: Literal["all", "on-read"] = "all"
    """read every image at the start, or only 1,000 and the held-out ones: broken ones met later are replaced"""
    data_dir: Path = Path("data")
    """where named data sets are kept, and caches of others"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "data_dir", Path(self.data_dir))
        object.__setattr__(self, "range", tuple(map(float, self.range or ())) or None)
        given = self.range or ()
        low_high = list(zip(given[::2], given[1::2], strict=False))
        if self.targets not in get_args(TargetChoice):
            raise UserError(f"--targets {self.targets}: give classes, values, or auto")
        if len(given) % 2 or not all(-math.inf < low < high < math.inf for low, high in low_high):
            raise UserError(f"--range is LOW HIGH, or such a pair for each channel, with LOW < HIGH; got {given}")
        if self.axes is not None and sorted(self.axes) not in (sorted("NHWC"), sorted("NHW")):
            raise UserError(f"--axes {self.axes}: give the letters N (images), H, W and, if there are any, C in order")
        if self.check not in ("all", "on-read"):
            raise UserError(f"--check is all or on-read, got {self.check}")
        if self.check == "on-read" and self.cache is not None:
            raise UserError("--cache reads every image once, so that --check on-read saves nothing; leave one out")
        if not 0 < self.held_out < 1:
            raise UserError(f"--held-out is a share between 0 and 1, for example 0.1; got {self.held_out}")
        for name, least in (("seed", 0), ("workers", 0), ("cache", 1), ("channels", 1), ("max_pixels", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")

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
