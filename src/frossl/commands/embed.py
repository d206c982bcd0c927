"""``frossl embed``: a vector for every image of a folder, in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import Tensor, nn

from frossl.core.config import to_plain
from frossl.core.device import settle
from frossl.core.types import UserError
from frossl.data.open import join_sources, open_data, resolve_source
from frossl.data.options import DataOptions, Log, quiet
from frossl.data.whole import Squares, Whole, square_batches, whole
from frossl.evals.extract import Extractor
from frossl.evals.suite import untrained_encoder
from frossl.nn.encoder import EncoderSpec
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
    write_embeddings,
)
from frossl.runs.encoders import read_any_encoder
from frossl.train.evaluate import check_scale
from frossl.train.resources import device_of, workers_for

UNTRAINED = "untrained"
"""The name of an encoder like the first that is given, with random weights."""
PART, BATCH = 4096, 128
HALF_ENDS = 65_504
"""The largest number of float16."""
SETTLED = 5000
"""Images that statistics of batch norms of an untrained encoder are taken from, spread evenly."""
Tell = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class HowToEncode(Images):
    """Which images, and how they are encoded."""

    backbone: str = "resnet18"
    """the net of files that hold weights alone: any timm model name; a tag says how they are fed"""
    backbone_options: str = "{}"
    """options of such a net for timm as JSON"""
    stem: Literal["auto", "imagenet", "small", "cifar"] = "auto"
    """the stem of such a net"""
    size: int | None = None
    """pixels that the encoder sees (what it was published with, if not given)"""
    batch: int = BATCH
    """images that are encoded at a time; vectors do not depend on it"""
    device: Device = "auto"
    """where to compute"""

    @property
    def net(self) -> Architecture:
        """The architecture of files that do not say."""
        return Architecture(name=self.backbone, stem=self.stem, options=backbone_options(self.backbone_options))


@dataclass(frozen=True, kw_only=True)
class Embed(HowToEncode):
    """Write a vector for every image to a file: path, split, label, vector, encoder and its checksum.

    Goes on where it was interrupted, if images and encoder are the same.
    """

    encoder: str | None = None
    """RUN, FILE, timm:NAME.TAG, hf-hub:ORG/NAME, FOLDER or lite0 (lite0 if not given and its extra is installed)"""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("embeddings.parquet")
    """file that ends in .parquet or .npz"""
    half: bool = False
    """float16 instead of float32"""


def run(args: list[str], console: Console) -> int:
    given = tyro.cli(Embed, prog="frossl embed", args=join_sources(args))
    check_output(given.out)
    images, subject = open_for(given, default_encoder(given.encoder, terminal.detail(console)), console)
    embed_to(given.out, images, subject, given, half=given.half, console=console)
    terminal.wrote(console, "Embeddings", given.out)
    return 0


def default_encoder(encoder: str | None, log: Log) -> str:
    """``encoder``, or lite0 where its extra is installed; says so.

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
    log("encoder: lite0 (EfficientNet-Lite0, trained on ImageNet with labels), as none was given; --encoder is another")
    return LITE0


@dataclass(frozen=True, eq=False)
class Subject:
    """An encoder in eval mode on its device, how it is fed, and its name and checksum."""

    name: str
    module: nn.Module
    spec: EncoderSpec
    checksum: str
    extractor: Extractor
    workers: int


def open_for(given: HowToEncode, encoder: str, console: Console) -> tuple[Whole, Subject]:
    """The images of ``given`` as the encoder is fed, and the encoder.

    Raises:
        UserError: no such images or encoder, or they do not fit.
    """
    log = terminal.detail(console)
    state, spec = read_any_encoder(encoder, net=given.net, log=log)
    images = open_images(replace(given, range=given.range or spec.range or None), log)
    terminal.show_images(console, images.data, f"{len(images):,} images")
    for note in images.data.notes:
        if "left out" in note or "not used" in note:  # of a third split, or a split without labels
            terminal.warn(console, note)
    check_scale(images.data, spec)
    asked = for_images(spec, channels=images.data.channels, size=given.size or spec.size)
    module = build_with_weights(state, spec, asked, log)
    return images, subject_of(encoder, module, asked, given, images)


def subject_of(name: str, module: nn.Module, spec: EncoderSpec, given: HowToEncode, images: Whole) -> Subject:
    """What encodes ``images`` as ``given`` says."""
    config = Config(data=given.data, device=given.device, workers=given.workers)
    device = device_of(config)
    settle(device, "32", config.deterministic)
    spec = replace(spec, features=feature_width(module, spec.channels, spec.size))
    checksum = encoder_checksum(dict(module.state_dict()), spec)
    module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Subject(name, module.eval(), spec, checksum, Extractor(device=device), workers_for(config, images.data))


def open_images(given: DataOptions, log: Log = quiet) -> Whole:
    """All images of ``given``; none is read before its turn.

    Raises:
        UserError: there are none, or an option that has no sense where each image is read once and none held out.
    """
    for name in ("cache", "check", "held_out", "group"):
        if getattr(given, name) != getattr(DataOptions, name):
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag}: each image is read once here, and none is held out; leave it out")
    how = {**given.data_options(), "check": "on-read", "held_out": 0.01}  # few are looked at first
    return whole(open_data(given.data, **how, memory_limit=0, log=log))  # type: ignore[attr-defined]


def untrained_like(subject: Subject, given: HowToEncode, images: Whole) -> Subject:
    """The encoder of ``subject`` with random weights and batch-norm statistics of the images."""
    module = untrained_encoder(subject.spec, given.seed)
    index = np.linspace(0, len(images) - 1, min(len(images), SETTLED)).astype(int)
    made = subject_of(UNTRAINED, module, subject.spec, given, images)
    made.extractor.settle_batch_norm_on(made.module, _readable(encoder_input(images.select(index), made, 512), 512))
    return replace(made, checksum=encoder_checksum(dict(module.state_dict()), made.spec))


def _readable(batches: Iterable[tuple[Tensor, list[str]]], size: int) -> Iterator[Tensor]:
    """The pictures of ``batches`` that are some, ``size`` at a time, what is left over last."""
    held = torch.empty(0)
    for x, reasons in batches:
        x = x[[not reason for reason in reasons]]
        held = torch.cat([held, x]) if len(held) else x
        if len(held) >= size:
            yield held[:size]
            held = held[size:]
    if len(held):
        yield held


def encoder_input(images: Whole, subject: Subject, batch: int) -> Any:
    """Normalised pictures ``(B, C, size, size)`` on the device, and why some of them are none."""
    spec, device = subject.spec, subject.extractor.device
    shift, scale = (torch.tensor(t, device=device)[:, None, None] for t in (spec.mean, spec.std))
    for x, reasons in square_batches(Squares(images, spec.size, spec.interpolation), batch, subject.workers):
        yield (x.to(device).float().div_(255) - shift).div_(scale), reasons


def embed_to(
    out: Path,
    images: Whole,
    subject: Subject,
    given: HowToEncode,
    *,
    half: bool = False,
    keep: bool = False,
    console: Console,
) -> None:
    """Writes the embeddings of ``images`` to ``out``, from where an earlier call was interrupted.

    With ``keep`` a file that has them already stays, and gets the labels and splits of now.
    """
    dtype = np.float16 if half else np.float32
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
        images=images.digest(),
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
    with terminal.counting(console, "encoding", len(images), parts.done) as tell:
        for vectors, reasons in encoded(images, subject, parts.done, given.batch, tell):
            if half and (largest := vectors.abs().max().item()) > HALF_ENDS:
                raise UserError(
                    f"--half: float16 ends at {HALF_ENDS:,}, and a feature is {largest:,.0f}; leave --half out"
                )
            parts.add(vectors.numpy().astype(dtype), reasons)
    broken = sum(bool(reason) for _, _, reasons in parts for reason in reasons)
    if broken == len(images):
        raise UserError(f"none of the {len(images):,} images could be read")
    if broken:
        terminal.warn(console, f"{broken:,} of {len(images):,} images could not be read and are left out")
    every = range(len(images))
    names, splits, labels = ([of(i) for i in every] for of in (images.name, images.split, images.label))
    parts.join(names, splits, labels, {one.path: one.reason for one in images.data.skipped})  # type: ignore[arg-type]


def encoded(images: Whole, subject: Subject, start: int, batch: int, tell: Tell) -> Any:
    """Vectors and reasons of the images from ``start`` on, about :data:`PART` at a time."""
    vectors: list[Tensor] = []
    reasons: list[str] = []
    for x, why in encoder_input(images.select(np.arange(start, len(images))), subject, batch):
        vectors.append(subject.extractor.encode(subject.module, x))
        reasons += why
        tell(len(why))
        if len(reasons) >= PART:
            yield torch.cat(vectors).cpu(), reasons
            vectors, reasons = [], []
    if reasons:
        yield torch.cat(vectors).cpu(), reasons


def embed(
    data: str,
    *,
    encoder: str | None = None,
    out: Path | str = "embeddings.npz",
    half: bool = False,
    console: Console | None = None,
    **options: Any,
) -> Embeddings:
    """Writes a vector for every image of ``data`` to ``out`` and gives them; ``options`` are those of the command.

    ``encoder`` is as :func:`frossl.runs.encoders.read_any_encoder` takes it; lite0 if None and installed.

    Raises:
        UserError: no such images or encoder, or ``out`` cannot be written.
    """
    console, out = console or Console(quiet=True), Path(out)
    check_output(out)
    given = Embed(data=data, encoder=encoder, out=out, half=half, **options)
    images, subject = open_for(given, default_encoder(encoder, terminal.detail(console)), console)
    embed_to(out, images, subject, given, half=half, console=console)
    return read_embeddings(out)
