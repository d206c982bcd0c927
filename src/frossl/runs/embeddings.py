"""Files of embeddings, Parquet or NumPy's ``.npz``: written part by part and joined at the end."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from frossl.core.config import from_plain, to_plain
from frossl.core.files import write_atomically, write_text
from frossl.core.types import UserError
from frossl.data.whole import Whole
from frossl.nn.encoder import EncoderSpec

EXTENSIONS = (".parquet", ".npz")
_KEY = "frossl_embeddings"
OF_LABELS = ("labels", "targets", "label_column")
"""Options of data that say which labels there are."""
_ABOUT = "about.json"
_COLUMNS = ("row", "path", "split", "label")


@dataclass(frozen=True, kw_only=True)
class About:
    """The origin of embeddings: an encoder, and images at ``size`` pixels.

    ``checksum`` is that of :func:`encoder_checksum`, ``images`` that of :meth:`frossl.data.whole.Whole.digest`.
    ``source`` and ``options`` open the images again.
    """

    encoder: str
    checksum: str
    title: str
    size: int
    features: int
    dtype: str
    source: str
    options: dict[str, Any]
    targets: str | None
    images: str
    count: int

    def vectors(self) -> str:
        """What the vectors depend on, all but the source of the labels, as JSON."""
        options = {name: value for name, value in self.options.items() if name not in OF_LABELS}
        return json.dumps(to_plain(replace(self, options=options, targets=None)), indent=2)


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One vector for each image that could be read, ``(N, F)``, float32 or float16.

    ``rows`` are their indices among all images, as several may have one path. ``splits`` are ``train`` and
    ``held-out``, or empty where the data bring none; ``labels`` are names or None. ``unreadable`` maps the paths of the
    others to the reason.
    """

    rows: list[int] = field(repr=False)
    paths: list[str] = field(repr=False)
    splits: list[str] = field(repr=False)
    labels: list[str | None] = field(repr=False)
    vectors: np.ndarray = field(repr=False)
    about: About
    unreadable: dict[str, str] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def frame(self) -> Any:
        """A data frame of pandas with the columns path, split, label and vector.

        Raises:
            UserError: pandas is not installed.
        """
        return data_frame({"path": self.paths, "split": self.splits, "label": self.labels, "vector": [*self.vectors]})


def data_frame(columns: dict[str, Any]) -> Any:
    """``columns`` as a data frame of pandas. Raises UserError where it is not installed."""
    try:
        import pandas as pd
    except ImportError:
        raise UserError("data frames need pandas: pip install pandas; columns are there without it") from None
    return pd.DataFrame(columns)


def encoder_checksum(state: dict[str, Tensor], spec: EncoderSpec) -> str:
    """SHA-256 of the weights, by name, and of how the encoder is built and fed."""
    hashed = hashlib.sha256(json.dumps(to_plain(spec), sort_keys=True).encode())
    for name, x in sorted(state.items()):
        hashed.update(f"{name} {tuple(x.shape)} {x.dtype}".encode())
        hashed.update(x.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return hashed.hexdigest()


def check_output(out: Path) -> None:
    """Raises UserError for a file that embeddings cannot be written to, before anything is computed."""
    if out.suffix not in EXTENSIONS:
        raise UserError(f"embeddings are written to a file that ends in {' or '.join(EXTENSIONS)}; got {out}")
    if out.suffix == ".parquet":
        _pyarrow()
    if not out.absolute().parent.is_dir():
        raise UserError(f"there is no folder {out.absolute().parent} for {out.name}; make it first")


def usual_extension() -> str:
    """The extension of files whose names are not given: that of Parquet if it can be written."""
    return ".parquet" if importlib.util.find_spec("pyarrow") else ".npz"


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            "Parquet needs pyarrow: pip install 'frossl[explore]'; or give a file that ends in .npz"
        ) from None
    return pa


class Parts:
    """Vectors that are not yet in ``out``: files for consecutive images, in a folder beside it.

    Files of the same images and encoder are kept, with any labels; a folder of others is removed.
    """

    def __init__(self, out: Path, about: About) -> None:
        self.out, self.about = out, about
        self.folder = out.with_name(f".{out.name}.parts")
        plain = about.vectors()
        if not (self.folder / _ABOUT).exists() or (self.folder / _ABOUT).read_text() != plain:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            write_text(self.folder / _ABOUT, plain)
        self.done = 0
        while (path := self._path(self.done)).exists():
            self.done += len(np.load(path)["reasons"])

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:012}.npz"

    def add(self, vectors_NF: np.ndarray, reasons: Sequence[str]) -> None:
        """Adds vectors; ``reasons`` says why an image could not be read, and is empty for those that could."""

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, vectors=vectors_NF, reasons=np.array(reasons, np.str_))

        write_atomically(self._path(self.done), write)
        self.done += len(reasons)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray, list[str]]]:
        """The first row of each part, its vectors and reasons."""
        start = 0
        while start < self.done:
            with np.load(self._path(start)) as part:
                vectors, reasons = part["vectors"], part["reasons"].tolist()
            yield start, vectors, reasons
            start += len(reasons)

    def join(
        self,
        names: Sequence[str],
        splits: Sequence[str],
        labels: Sequence[str | None],
        skipped: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Writes ``out`` from all parts, a part at a time for Parquet, and removes them.

        ``skipped`` are further images that could not be read, and why.
        """

        def columns() -> Iterator[Columns]:
            for start, vectors, reasons in self:
                kept = [i for i, reason in enumerate(reasons) if not reason]
                rows = [start + i for i in kept]
                paths, split, label = ([column[row] for row in rows] for column in (names, splits, labels))
                yield rows, paths, split, label, vectors[kept]  # type: ignore[misc]

        broken = {names[start + i]: reason for start, _, of in self for i, reason in enumerate(of) if reason}
        _write(self.out, self.about, {**skipped, **broken}, columns())
        shutil.rmtree(self.folder)


def relabelled(one: Embeddings, images: Whole, about: About) -> Embeddings:
    """``one`` with the splits and labels that ``images``, which are the same, have now; itself if it has these."""
    splits, labels = ([every[i] for i in one.rows] for every in (images.splits(), images.labels()))
    was, now = ([label or "" for label in of] for of in (one.labels, labels))
    same = about == one.about and splits == one.splits and was == now
    return one if same else replace(one, splits=splits, labels=labels, about=about)


def write_embeddings(out: Path, one: Embeddings) -> None:
    """Writes what :func:`read_embeddings` reads."""
    _write(out, one.about, one.unreadable, iter([(one.rows, one.paths, one.splits, one.labels, one.vectors)]))


Columns = tuple[list[int], list[str], list[str], list[str | None], np.ndarray]
"""Rows, paths, splits, labels and vectors of images that could be read."""


def _write(out: Path, about: About, unreadable: dict[str, str], parts: Iterator[Columns]) -> None:
    metadata = json.dumps({"about": to_plain(about), "unreadable": unreadable})
    write = _write_parquet if out.suffix == ".parquet" else _write_npz
    write_atomically(out, lambda path: write(path, about, metadata, parts))


def _write_parquet(path: Path, about: About, metadata: str, parts: Iterator[Columns]) -> None:
    pa = _pyarrow()
    word = pa.dictionary(pa.int32(), pa.string())
    kinds = {"row": pa.int64(), "path": pa.string(), "split": word, "label": word}
    vector = pa.list_(pa.from_numpy_dtype(np.dtype(about.dtype)), about.features)
    kinds |= {"vector": vector, "encoder": word, "checksum": word}
    schema = pa.schema(kinds, metadata={_KEY: metadata})
    with pa.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for *lists, vectors in parts:
            columns = dict(zip(_COLUMNS, lists, strict=True))
            columns |= {name: [getattr(about, name)] * len(vectors) for name in ("encoder", "checksum")}
            arrays = {name: pa.array(values, kinds[name]) for name, values in columns.items()}
            arrays["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), about.features)
            writer.write_table(pa.Table.from_arrays([arrays[name] for name in kinds], schema=schema))


def _write_npz(path: Path, about: About, metadata: str, parts: Iterator[Columns]) -> None:
    *lists, vectors = zip(*parts, strict=True)
    rows, paths, splits, labels = (list(chain(*of)) for of in lists)
    words = {"path": paths, "split": splits, "label": [label or "" for label in labels]}
    words |= {"encoder": about.encoder, "checksum": about.checksum, _KEY: metadata}
    arrays: dict[str, Any] = {name: np.array(values, np.str_) for name, values in words.items()}
    arrays |= {"row": np.array(rows, np.int64), "vector": np.concatenate(vectors)}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _metadata(path: Path) -> dict[str, Any]:
    """``about`` and ``unreadable`` of a file of embeddings; empty for any other file."""
    try:
        if path.suffix == ".npz":
            with np.load(path) as file:
                text = str(file[_KEY]) if _KEY in file.files else "{}"
        elif path.suffix == ".parquet":
            text = (_pyarrow().parquet.read_schema(path).metadata or {}).get(_KEY.encode(), "{}")
        else:
            return {}
        return json.loads(text)
    except (OSError, ValueError, EOFError):
        return {}


def is_embeddings(source: str) -> bool:
    """Whether ``source`` is a file that :class:`Parts` wrote; False for what cannot be read."""
    return bool(_metadata(Path(source)))


def read_about(path: Path) -> About:
    """The description of a file of embeddings, without reading them."""
    return from_plain(About, _metadata(path)["about"])


def read_embeddings(path: Path) -> Embeddings:
    """Reads what :class:`Parts` wrote.

    Raises:
        UserError: it is no such file.
    """
    metadata = _metadata(path)
    if not metadata:
        raise UserError(f"{path} does not hold embeddings that frossl embed wrote ({' or '.join(EXTENSIONS)})")
    if path.suffix == ".npz":
        with np.load(path) as file:
            columns, vectors = {name: file[name].tolist() for name in _COLUMNS}, file["vector"]
    else:
        table = _pyarrow().parquet.read_table(path)
        columns = {name: table.column(name).to_pylist() for name in _COLUMNS}
        vectors = np.concatenate([chunk.flatten().to_numpy() for chunk in table.column("vector").chunks])
        vectors = vectors.reshape(len(table), -1)
    rows, paths, splits, labels = (columns[name] for name in _COLUMNS)
    about = from_plain(About, metadata["about"])
    return Embeddings(rows, paths, splits, [x or None for x in labels], vectors, about, metadata["unreadable"])
