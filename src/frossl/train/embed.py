"""A vector for every image of a collection, in a file: ``frossl.embed``."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import Tensor, nn

from frossl.core.config import to_plain
from frossl.core.device import settle
from frossl.core.files import write_text
from frossl.core.types import UserError
from frossl.data.open import open_data, resolve_source
from frossl.data.options import DataOptions, Log, quiet
from frossl.data.whole import Squares, Whole, square_batches, whole
from frossl.evals.extract import Extractor
from frossl.evals.suite import untrained_encoder
from frossl.nn.encoder import EncoderSpec
from frossl.nn.fused import without_batch_norms
from frossl.nn.output import feature_width
from frossl.nn.published import LITE0, Architecture, build_with_weights, for_images, has_lite0
from frossl.report import terminal
from frossl.runs.config import Config, Device, Images, backbone_options
from frossl.runs.embeddings import (
    About,
    Embeddings,
    Parts,
    check_output,
    encoder_checksum,
    is_embeddings,
    read_about,
    read_embeddings,
    relabelled,
    usual_extension,
    write_embeddings,
)
from frossl.runs.encoders import read_any_encoder
from frossl.train.evaluate import check_scale
from frossl.train.resources import device_of, workers_for

UNTRAINED = "untrained"
"""The name of an encoder like the first one given, with random weights."""
PART, BATCH = 4096, 128
"""Images of a part of the file that is written at once; images that are encoded at once."""
SETTLED = 5000
"""Images from which the batch-norm statistics of an untrained encoder are taken, spread evenly."""


@dataclass(frozen=True, kw_only=True)
class EncoderOptions(Images):
    """Which images, and how encoders of files that hold weights alone are built."""

    backbone: str = "resnet18"
    """the net of files that hold weights alone: any timm model name; a tag says how they are fed"""
    backbone_options: str = "{}"
    """options of such a net for timm as JSON"""
    stem: Literal["auto", "imagenet", "small", "cifar"] = "auto"
    """the stem of such a net"""
    size: int | None = None
    """pixels that encoders see (what each was published with, if not given)"""
    device: Device = "auto"
    """where to compute"""

    @property
    def net(self) -> Architecture:
        """The architecture of a file that holds weights alone."""
        return Architecture(name=self.backbone, stem=self.stem, options=backbone_options(self.backbone_options))


@dataclass(frozen=True, kw_only=True)
class BatchOptions(EncoderOptions):
    """The same, and how many images are encoded at once."""

    batch: int = BATCH
    """images that are encoded at a time; vectors do not depend on it"""


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(BatchOptions):
    """Write a vector for every image to a file: path, split, label, vector, encoder and its checksum.

    Goes on where it was interrupted, if images and encoder are the same.
    """

    encoder: str | None = None
    """RUN, FILE, timm:NAME.TAG, hf-hub:ORG/NAME, FOLDER or lite0 (lite0 if not given and its extra is installed)"""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = field(
        default_factory=lambda: Path(f"embeddings{usual_extension()}")
    )
    """file that ends in .parquet, which needs pyarrow, or .npz"""
    half: bool = False
    """float16 instead of float32"""


def embed(
    data: str, *, out: Path | str = "embeddings.npz", console: Console | None = None, **options: Any
) -> Embeddings:
    """Writes a vector for every image of ``data`` to ``out`` and returns them.

    ``options`` are the other fields of :class:`EmbedOptions`. ``encoder`` is as
    :func:`frossl.runs.encoders.read_any_encoder` takes it, or lite0 if None and its extra is installed.

    Raises:
        UserError: no such images or encoder, or ``out`` cannot be written.
    """
    given = EmbedOptions(data=data, out=Path(out), **options)
    embed_to_file(given, console or Console(quiet=True))
    return read_embeddings(given.out)


def embed_to_file(given: EmbedOptions, console: Console) -> None:
    """As :func:`embed`, without reading the vectors back."""
    check_output(given.out)
    images, subject = open_images_and_encoder(given, default_encoder(given.encoder, console), console)
    write_vectors(given.out, images, subject, given, half=given.half, console=console)


def default_encoder(encoder: str | None, console: Console) -> str:
    """``encoder``, or lite0 if it is None and lite0's extra is installed.

    Raises:
        UserError: neither.
    """
    if encoder is not None:
        return encoder
    if not has_lite0():
        raise UserError(
            "--encoder: say which, such as runs/NAME of a run of yours; without one, lite0 serves if its extra is "
            "installed: pip install 'frossl[lite0]'"
        )
    terminal.detail(console)("encoder: lite0 (EfficientNet-Lite0, trained on ImageNet with labels), as none was given")
    return LITE0


@dataclass(frozen=True, eq=False)
class LoadedEncoder:
    """An encoder in eval mode on its device, how it is fed, and its name and checksum."""

    name: str
    module: nn.Module
    spec: EncoderSpec
    checksum: str
    extractor: Extractor
    workers: int


def open_images_and_encoder(given: BatchOptions, encoder: str, console: Console) -> tuple[Whole, LoadedEncoder]:
    """The images of ``given`` on the intensity range of the encoder, and the encoder.

    Raises:
        UserError: no such images or encoder, or they do not fit.
    """
    log = terminal.detail(console)
    state, spec = read_any_encoder(encoder, net=given.net, log=log)
    images = open_images(replace(given, range=given.range or spec.range or None), log)
    terminal.show_images(console, images.data, f"{len(images):,} images")
    for note in images.data.notes:
        if "left out" in note or "not used" in note:  # a third split, or a split without labels
            terminal.warn(console, note)
    check_scale(images.data, spec)
    asked = for_images(spec, channels=images.data.channels, size=given.size or spec.size)
    return images, load(encoder, build_with_weights(state, spec, asked, log), asked, given, images)


def load(name: str, module: nn.Module, spec: EncoderSpec, given: BatchOptions, images: Whole) -> LoadedEncoder:
    """``module`` on the device of ``given``, ready to encode ``images``."""
    config = Config(data=given.data, device=given.device, workers=given.workers)
    device = device_of(config)
    settle(device, "32", config.deterministic)
    spec = replace(spec, features=feature_width(module, spec.channels, spec.size))
    checksum = encoder_checksum(dict(module.state_dict()), spec)
    module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    extractor = Extractor(device=device)
    return LoadedEncoder(name, module.eval(), spec, checksum, extractor, workers_for(config, images.data))


def open_images(given: DataOptions, log: Log = quiet) -> Whole:
    """All images of ``given``, decoded one by one when they are needed.

    Raises:
        UserError: there are none, or an option that makes no sense where each image is read once and none held out.
    """
    for name in ("cache", "check", "held_out", "group"):
        if getattr(given, name) != getattr(DataOptions, name):
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag}: each image is read once here, and none is held out; leave it out")
    # Images that are held out are checked when data is opened: make them few.
    how = {**given.data_options(), "check": "on-read", "held_out": 0.01}
    return whole(open_data(given.data, **how, memory_limit=0, log=log))  # type: ignore[attr-defined]


def untrained_like(subject: LoadedEncoder, given: BatchOptions, images: Whole) -> LoadedEncoder:
    """The encoder of ``subject`` with random weights and batch-norm statistics of the images."""
    module = untrained_encoder(subject.spec, given.seed)
    index = np.linspace(0, len(images) - 1, min(len(images), SETTLED)).astype(int)
    made = load(UNTRAINED, module, subject.spec, given, images)
    batches = _readable(encoder_input(images.select(index), made, 512), 512)
    made.extractor.settle_batch_norm_on(made.module, batches)
    return replace(made, checksum=encoder_checksum(dict(module.state_dict()), made.spec))


def _readable(batches: Iterable[tuple[Tensor, list[str]]], size: int) -> Iterator[Tensor]:
    """Batches of ``size`` without the images that could not be read; the last one may be smaller."""
    held = torch.empty(0)
    for x, reasons in batches:
        x = x[[not reason for reason in reasons]]
        held = torch.cat([held, x]) if len(held) else x
        if len(held) >= size:
            yield held[:size]
            held = held[size:]
    if len(held):
        yield held


def encoder_input(images: Whole, subject: LoadedEncoder, batch: int) -> Iterator[tuple[Tensor, list[str]]]:
    """Normalised images ``(B, C, size, size)`` on the device, and why some of them could not be read, else empty."""
    spec, device = subject.spec, subject.extractor.device
    shift, scale = (torch.tensor(t, device=device)[:, None, None] for t in (spec.mean, spec.std))
    for x, reasons in square_batches(Squares(images, spec.size, spec.interpolation), batch, subject.workers):
        yield (x.to(device).float().div_(255) - shift).div_(scale), reasons


def write_vectors(
    out: Path,
    images: Whole,
    subject: LoadedEncoder,
    given: BatchOptions,
    *,
    half: bool = False,
    keep: bool = False,
    console: Console,
) -> None:
    """Writes the vectors of ``images`` to ``out``, going on where an earlier call was interrupted.

    With ``keep``, vectors that ``out`` has already are not computed again; they get the present labels and splits.
    """
    dtype, names = np.float16 if half else np.float32, images.names()
    options = {k: v for k, v in to_plain(given.data_options()).items() if k not in ("workers", "check", "held_out")}
    about = About(
        encoder=subject.name,
        checksum=subject.checksum,
        title=subject.spec.title,
        size=subject.spec.size,
        features=subject.spec.features,
        dtype=np.dtype(dtype).name,
        source=resolve_source(given.data, links=False),
        options=options | {"range": to_plain(images.data.range) or None},
        targets=images.data.targets,
        images=images.digest(names),
        count=len(images),
    )
    if keep and is_embeddings(str(out)) and read_about(out).vectors() == about.vectors():
        kept = read_embeddings(out)
        if (now := relabelled(kept, images, about)) is not kept:
            write_embeddings(out, now)
        return
    parts = Parts(out, about)
    if parts.done:
        terminal.say(console, f"going on after {parts.done:,} images, which were encoded before")
    with terminal.counting(console, "encoding", len(images), parts.done) as advance:
        for vectors, reasons in encode_parts(images, subject, parts.done, given.batch, advance):
            if half and (largest := vectors.abs().max().item()) > torch.finfo(torch.float16).max:
                raise UserError(f"--half: float16 ends at 65,504, and a feature is {largest:,.0f}; leave --half out")
            parts.add(vectors.numpy().astype(dtype), reasons)
    broken = sum(bool(reason) for _, _, reasons in parts for reason in reasons)
    if broken == len(images):
        raise UserError(f"none of the {len(images):,} images could be read")
    if broken:
        terminal.warn(console, f"{broken:,} of {len(images):,} images could not be read and are left out")
    parts.join(names, images.splits(), images.labels(), {one.path: one.reason for one in images.data.skipped})


def given_embeddings(given: BatchOptions, encoder: object) -> Embeddings | None:
    """The embeddings of the file ``given.data``; None if it is no such file, but images.

    Raises:
        UserError: an ``encoder`` is given beside embeddings.
    """
    if not is_embeddings(given.data):
        return None
    if encoder:
        raise UserError("--encoder: these embeddings have their encoder; give the images to use another")
    return read_embeddings(Path(given.data))


def embed_once(stem: Path, images: Whole, subject: LoadedEncoder, given: BatchOptions, console: Console) -> Embeddings:
    """The embeddings of ``images``, from the file ``stem`` plus its extension, which is made or completed first."""
    file = stem.with_name(f"{stem.name}{usual_extension()}")
    write_vectors(file, images, subject, given, keep=True, console=console)
    return read_embeddings(file)


def encode_parts(
    images: Whole, subject: LoadedEncoder, start: int, batch: int, advance: Callable[[int], None]
) -> Iterator[tuple[Tensor, list[str]]]:
    """Vectors of the images from ``start`` on, and why some could not be read, about :data:`PART` at a time."""
    vectors: list[Tensor] = []
    reasons: list[str] = []
    module: nn.Module | None = None
    for x, why in encoder_input(images.select(np.arange(start, len(images))), subject, batch):
        if module is None:
            module = without_batch_norms(subject.module, x)
        vectors.append(subject.extractor.encode(module, x))
        reasons += why
        advance(len(why))
        if len(reasons) >= PART:
            yield torch.cat(vectors).cpu(), reasons
            vectors, reasons = [], []
    if reasons:
        yield torch.cat(vectors).cpu(), reasons


def write_csv(path: Path, columns: dict[str, Sequence[Any]]) -> None:
    """Columns, by name, as comma-separated values."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_text(path, file.getvalue())
