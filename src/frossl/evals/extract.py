"""Features of an encoder on a data set, once, in eval mode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from frossl.core.device import upload
from frossl.core.distributed import (
    broadcast_object,
    collect,
    join,
    rank,
    run_on_rank_zero,
    run_with_heartbeat,
    world_size,
)
from frossl.core.types import Features, known
from frossl.data.loader import plain_batches, view_batches
from frossl.data.sources import LazyImages
from frossl.data.types import Dataset, Split
from frossl.nn.convolution import narrow_in_float32
from frossl.nn.encoder import EncoderSpec
from frossl.nn.modes import eval_mode, kept_in_eval, train_mode
from frossl.views.recipes import Recipe

T = TypeVar("T")
R = TypeVar("R")
HELD = 2**28
"""Bytes of features that wait on their device to be copied together."""
PIXELS = 32
"""Raw pixels are compared at no more than this many on a side."""
BANK, QUERIES = 5000, 2000
"""Most images of the train and held-out splits that monitor and report look at."""
EVALUATED = 200_000
"""Most train images that an evaluation uses unless told otherwise: as bank, for probes and batch-norm statistics."""


class Extractor:
    """Turns splits into features under one precision, device and batch size; ``half`` is what autocast computes in."""

    def __init__(
        self,
        *,
        device: torch.device | str = "cpu",
        half: torch.dtype | None = None,
        workers: int = 0,
        over_ranks: bool = False,
    ) -> None:
        self.device, self.half, self.workers = torch.device(device), half, workers
        self.shared = over_ranks and world_size() > 1

    @torch.no_grad()
    def split(self, encoder: nn.Module, split: Split, spec: EncoderSpec) -> Tensor:
        """``(N, F)`` float32 on the CPU; with ``over_ranks`` each rank encodes a part and gets the whole, in order."""
        shares = torch.arange(len(split)).tensor_split(world_size() if self.shared else 1)
        part = pick(split, shares[rank()]) if self.shared else split
        batches = self.batches(part, spec)
        h_NF = self.each(lambda: collected(self.encode(encoder, x) for x in batches))
        h_NF = torch.empty(0, spec.features) if h_NF is None else h_NF  # more ranks than images
        return join(h_NF, [len(broadcast_object) for broadcast_object in shares]) if self.shared else h_NF

    def batches(self, split: Split, spec: EncoderSpec) -> Iterator[Tensor]:
        """Every image of ``split`` as the encoder is fed."""
        how = {"interpolation": spec.interpolation, "device": self.device, "workers": self.workers}
        return plain_batches(split, spec.size, spec.mean, spec.std, **how)

    def each(self, work: Callable[[], T]) -> T:
        """What ``work``, in which ranks do not speak with each other, returns on this one; slow ones are waited for."""
        return run_with_heartbeat(work) if self.shared else work()

    def first(self, work: Callable[[], T]) -> T:
        """What ``work``, in which ranks do not speak with each other, returns on the first, which alone does it."""
        return broadcast_object(run_on_rank_zero(work)) if self.shared else work()  # type: ignore[return-value]

    def spread(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """What ``work`` returns of each item; ranks take turns at them."""
        if not self.shared:
            return [work(item) for item in items]
        numbers = range(rank(), len(items), world_size())
        done = dict(collect(run_with_heartbeat(lambda: [(i, work(items[i])) for i in numbers])))
        return [done[i] for i in range(len(items))]

    def alone(self) -> Extractor:
        """The same on one rank, whatever the others do."""
        return Extractor(device=self.device, half=self.half, workers=self.workers) if self.shared else self

    @torch.no_grad()
    def views(self, encoder: nn.Module, split: Split, spec: EncoderSpec, recipe: Recipe, seed: int) -> Tensor:
        """``(V, N, F)`` of the views of ``recipe`` of every image of ``split``."""
        parts = []
        for views in view_batches(split, recipe, spec.mean, spec.std, seed=seed, workers=self.workers):
            parts.append(torch.cat([torch.stack([self.encode(encoder, v) for v in x]) for x in views]).cpu())
        return torch.cat(parts, dim=1)

    def data(
        self,
        encoder: nn.Module,
        data: Dataset,
        spec: EncoderSpec,
        views: tuple[Recipe, int] | None = None,
        most_views: int = 2048,
    ) -> Features:
        """Features of both splits and, given a recipe and a seed as ``views``, of views of held-out images."""
        with eval_mode(encoder):
            return Features(
                train_NF=self.split(encoder, data.train, spec),
                test_NF=self.split(encoder, data.test, spec),
                train_labels=data.train.labels,
                test_labels=data.test.labels,
                classes=data.classes,
                views_VNF=None
                if views is None
                else self.each(lambda: self.views(encoder, first(data.test, most_views), spec, *views)),
            )

    def settle_batch_norm(self, encoder: nn.Module, split: Split, spec: EncoderSpec) -> None:
        """Sets running statistics of batch norms to their averages over one pass over ``split``.

        Batch norms that training would leave in eval mode keep theirs. Averages are over batches of one size: what is
        left over at the end, at most 511 images, is left out unless it is all there is.
        """
        self.settle_batch_norm_on(encoder, self.batches(split, spec))

    @torch.no_grad()
    def settle_batch_norm_on(self, encoder: nn.Module, batches: Iterable[Tensor]) -> None:
        """As :meth:`settle_batch_norm`, from batches as the encoder is fed."""
        kept, norm = kept_in_eval(encoder), nn.modules.batchnorm._BatchNorm
        norms = [m for name, m in encoder.named_modules() if isinstance(m, norm) and name not in kept]
        if not norms:
            return
        momenta = [m.momentum for m in norms]
        for m in norms:
            m.reset_running_stats()
            m.momentum = None  # a plain average over batches
        train_mode(encoder, kept)
        whole = 0
        for x in batches:
            whole = whole or len(x)
            if len(x) == whole:
                self.encode(encoder, x)
        encoder.eval()
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum

    @torch.no_grad()
    def encode(self, encoder: nn.Module, x: Tensor) -> Tensor:
        """Features ``(B, F)`` of normalised images, float32 on the device."""
        autocast = torch.autocast(self.device.type, self.half, enabled=self.half is not None)
        with autocast, narrow_in_float32(encoder, self.device, self.half == torch.bfloat16):
            dtype = next((p.dtype for p in encoder.parameters()), torch.float32)
            x = upload(x, self.device).to(dtype, memory_format=torch.channels_last)
            return encoder(x).float()


def collected(parts: Iterable[Tensor]) -> Tensor | None:
    """``parts`` joined, on the CPU; None if there are none. Up to :data:`HELD` bytes of them stay on their device, so
    that the processor waits for it once in a while and not for each.
    """
    done: list[Tensor] = []
    held: list[Tensor] = []
    for part in parts:
        held.append(part)
        if sum(x.nbytes for x in held) >= HELD:
            done.append(torch.cat(held).cpu())
            held = []
    done += [torch.cat(held).cpu()] if held else []
    return torch.cat(done) if done else None


def pixels(spec: EncoderSpec) -> tuple[nn.Module, EncoderSpec]:
    """What makes features of raw pixels, resized to at most :data:`PIXELS` on a side, in the place of an encoder.

    Images of more than three channels become smaller, so that there are no more numbers than of three.
    """
    size = min(spec.size, int(PIXELS * min(1.0, (3 / spec.channels) ** 0.5)))
    return nn.Flatten().eval(), replace(spec, size=size, features=spec.channels * size * size)


def first(split: Split, count: int) -> Split:
    """At most ``count`` images, spread evenly over the split; those that turn out to be unreadable are left out."""
    if len(split) > count:
        dtype = torch.float32 if len(split) < 2**24 else torch.float64  # as far as float32 counts
        split = pick(split, torch.linspace(0, len(split) - 1, count, dtype=dtype).long())
    images = split.images
    if not (isinstance(images, LazyImages) and images.unchecked):
        return split
    checked = Split(replace(images, unchecked=False), split.labels)
    return pick(checked, torch.from_numpy(images.check(None)[0]))


def sample(data: Dataset, bank: int = BANK, queries: int = QUERIES) -> Dataset:
    """``data`` with at most ``bank`` train and ``queries`` held-out images, spread evenly over the splits."""
    return replace(data, train=first(data.train, bank), test=first(data.test, queries))


def with_labels(data: Dataset) -> Dataset:
    """Only the training images whose label is known: what a supervised method trains on."""
    labels = data.train.labels
    return data if labels is None else replace(data, train=pick(data.train, known(labels).nonzero().flatten()))


def pick(split: Split, index: Iterable[int] | Tensor) -> Split:
    """The images at ``index``."""
    return split.select(torch.as_tensor(index))
