"""The one door to images: a name, a folder, Parquet files, or arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frossl.core.registry import unknown_name
from frossl.core.types import UserError
from frossl.data import arrays
from frossl.data.folder import open_folder
from frossl.data.hf import find_parquet, open_parquet
from frossl.data.options import DataOptions, Opening
from frossl.data.records import DATASETS
from frossl.data.types import Dataset


def open_data(source: str, options: DataOptions | None = None, **changes: Any) -> Dataset:
    """Open a named data set, a folder of images, Parquet files in the Hugging Face image layout, or arrays of NumPy.

    ``changes`` are fields of :class:`~frossl.data.options.Opening` and win over ``options``:
    ``open_data("images", cache=256, memory_limit=2**30)``. Where the data bring no held-out images, the fraction
    ``held_out`` (1 to 10,000 images) is chosen by ``seed``, evenly over the classes. With ``cache``, images of files
    are decoded once, to a shorter side of at most that many pixels, and memory-mapped from a store below ``data_dir``.

    Raises:
        UserError: there is nothing of that name, it cannot be read, or the options do not fit it.
    """
    opening = Opening(**({} if options is None else options.data_options()) | changes)
    try:
        path = Path(source).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # no permission, too long a name, no such home directory
        raise UserError(f"cannot open {source}: {getattr(error, 'strerror', None) or error}") from None
    if source in DATASETS:
        if path.exists():
            opening.log(f"{source} is read as the name of a data set; for the folder of that name write ./{source}")
        return DATASETS[source].open(opening)
    if find_parquet(path):
        return open_parquet(path, opening)
    if path.is_file() and path.suffix.lower() in arrays.EXTENSIONS:
        return arrays.open_arrays(path, opening)
    if path.is_dir():
        return open_folder(path, opening)
    if path.exists():
        raise UserError(
            f"{source} is a file{f' of type {path.suffix}' if path.suffix else ''}. Give a folder of images, "
            "a .parquet file or a folder of them, arrays in an .npy or .npz file, or the name of a data set."
        )
    raise UserError(f"no folder {source!r} exists, and {unknown_name('data set', source, list(DATASETS))}")
