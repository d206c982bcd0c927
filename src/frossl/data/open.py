"""The one door to images: a name, a folder, Parquet files, or arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from frossl.core.registry import unknown_name
from frossl.core.types import UserError
from frossl.data import arrays
from frossl.data.folder import open_folder
from frossl.data.hf import find_parquet, open_parquet
from frossl.data.records import DATASETS
from frossl.data.sources import Options
from frossl.data.types import Dataset


def open_data(
    source: str,
    *,
    data_dir: Path = Path("data"),
    labels: bool = True,
    channels: int | None = None,
    held_out: float = 0.1,
    seed: int = 0,
    memory_limit: int = 2 * 2**30,
    workers: int = 0,
    cache: int | None = None,
    log: Callable[[str], None] = lambda message: None,
) -> Dataset:
    """Open a named data set, a folder of images, Parquet files in the Hugging Face image layout, or arrays of NumPy.

    ``data_dir`` is where named sets are kept and downloads and caches go. ``labels=False`` ignores all labels.
    ``channels`` is 1 or 3; by default 1 if every image is grey, else 3. Where the data bring no held-out
    images, the fraction ``held_out`` (1 to 10,000 images) is chosen by ``seed``, evenly over the classes.
    Images of one size that fit ``memory_limit`` bytes are decoded at once, others at each access.
    With ``cache``, images of files are decoded once, to a shorter side of at most that many pixels, and memory-mapped
    from a store below ``data_dir``. ``workers`` threads read (0: one per core). Raises UserError.
    """
    options = Options(
        data_dir=Path(data_dir).expanduser(),
        labels=labels,
        channels=channels,
        held_out=held_out,
        seed=seed,
        memory_limit=memory_limit,
        workers=workers,
        cache=cache,
        log=log,
    )
    try:
        path = Path(source).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # no permission, too long a name, no such home directory
        raise UserError(f"cannot open {source}: {getattr(error, 'strerror', None) or error}") from None
    if source in DATASETS:
        if path.exists():
            log(f"{source} is read as the name of a data set; for the folder of that name write ./{source}")
        return DATASETS[source].open(options)
    if find_parquet(path):
        return open_parquet(path, options)
    if path.is_file() and path.suffix.lower() in arrays.EXTENSIONS:
        return arrays.open_arrays(path, options)
    if path.is_dir():
        return open_folder(path, options)
    if path.exists():
        raise UserError(
            f"{source} is a file{f' of type {path.suffix}' if path.suffix else ''}. Give a folder of images, "
            "a .parquet file or a folder of them, arrays in an .npy or .npz file, or the name of a data set."
        )
    raise UserError(f"no folder {source!r} exists, and {unknown_name('data set', source, list(DATASETS))}")
