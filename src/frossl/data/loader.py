"""Batches of training views, and of plain images for evaluation, with the order of images."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from frossl.core.device import SideStream, fits, upload
from frossl.core.machine import shared_memory
from frossl.core.random import uniforms
from frossl.core.types import UserError
from frossl.data.sources import LazyImages, show
from frossl.data.types import Dataset, LazySequence, Skipped, Split
from frossl.views import ops
from frossl.views.make import crop_one, finish_views, render_views
from frossl.views.params import sample_params
from frossl.views.recipes import Recipe, least_side

T = TypeVar("T")

_ORDER = 1 << 32  # keeps the order of samples and the parameters of views apart in the space of random keys


@dataclass(frozen=True)
class Batch:
    """N images as views: one float tensor ``(V, N, C, S, S)`` for each resolution, and on their device the labels.

    ``skipped`` are those of them that could not be read; pixels and labels in their places are those of others.
    """

    index_N: Tensor
    labels_N: Tensor | None
    views: list[Tensor]
    skipped: tuple[Skipped, ...] = ()

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors on the device."""
        return self.views if self.labels_N is None else [*self.views, self.labels_N]


def epoch_order(images: int, seed: int, epoch: int) -> Tensor:
    """The order of all images in ``epoch``: a permutation that depends on nothing but its arguments."""
    return torch.from_numpy(uniforms(1, seed, _ORDER + epoch, np.arange(images))[:, 0]).argsort(stable=True)


def training_batches(
    data: Dataset,
    recipe: Recipe,
    *,
    batch: int,
    seed: int,
    first_step: int = 0,
    workers: int = 0,
    device: torch.device | str = "cpu",
    rank: int = 0,
    ranks: int = 1,
    compiled: bool = False,
    prefetch: bool | None = None,
    dtype: torch.dtype = torch.float32,
    own_stream: bool = False,
) -> Iterator[Batch]:
    """Batches without end from ``first_step`` on; the same whatever the number of workers and the start.

    Each rank gets one of ``ranks`` consecutive parts of each batch; the first parts may be longer by one image.
    ``compiled`` makes colours in one compiled kernel, with other rounding. ``prefetch`` makes each batch in a thread
    while the one before is trained on: by default on CUDA only, since on the CPU both compete for the same cores.
    ``own_stream`` runs the work of that thread on a CUDA stream of its own, beside the step. ``dtype`` is that of the
    views, for loops whose encoder takes another than float32.
    """
    plan = epoch_indices(len(data.train), batch, seed, first_step, rank, ranks)
    batches = _batches(data.train, recipe, data.mean, data.std, plan, seed, workers, device, compiled, dtype)
    device = torch.device(device)
    in_thread = device.type == "cuda" if prefetch is None else prefetch
    return prefetched(batches, device, own_stream) if in_thread else batches


def view_batches(
    split: Split, recipe: Recipe, mean: Sequence[float], std: Sequence[float], *, seed: int, workers: int = 0
) -> Iterator[list[Tensor]]:
    """Views of every image of ``split`` in order, 256 images at a time, on the CPU; a single batch without workers."""
    plan = [(0, index_N) for index_N in torch.arange(len(split)).split(256)]
    workers = workers if len(plan) > 1 else 0
    return (b.views for b in _batches(split, recipe, mean, std, plan, seed, workers, "cpu"))


def views_of(
    split: Split,
    recipe: Recipe,
    index_N: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    seed: int,
    epoch: int = 0,
) -> list[Tensor]:
    """The same views that training with ``seed`` makes of the images at ``index_N`` in ``epoch``, on the CPU."""
    return next(_batches(split, recipe, mean, std, [(epoch, index_N)], seed, 0, "cpu")).views


def _batches(
    split: Split,
    recipe: Recipe,
    mean: Sequence[float],
    std: Sequence[float],
    plan: Iterable[tuple[int, Tensor]],
    seed: int,
    workers: int,
    device: torch.device | str,
    compiled: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Batch]:
    """Images in memory become views on ``device``, where all of them live if they fit; others are decoded once by the
    workers, which take the crops, and only their colours are changed on ``device``.
    """
    device = torch.device(device)

    def labels(index_N: Tensor) -> Tensor | None:
        y = None if split.labels is None else split.labels[index_N]
        return y if y is None or y.is_floating_point() else upload(y, device)  # no step learns from values

    if isinstance(split.images, Tensor):
        resident = split.images.to(device) if fits(split.images, device) else None
        for epoch, index_N in plan:
            x = upload(split.images[index_N], device) if resident is None else resident[upload(index_N, device)]
            drawn = sample_params(recipe, seed=seed, epoch=epoch, index_N=index_N, height=x.shape[2], width=x.shape[3])
            yield Batch(index_N, labels(index_N), render_views(x, recipe, drawn, mean, std, compiled, dtype))
        return
    images = split.images
    if isinstance(images, LazyImages):
        images = replace(images, least=least_side(recipe))
    keys = ([(epoch, int(i)) for i in index_N] for epoch, index_N in plan)
    crops_of = _Crops(images, recipe, seed)
    batches = iterate_loader(crops_of, workers, batch_sampler=keys, collate_fn=_stack, pin_memory=device.type == "cuda")
    for epoch, skipped, index_N, shown_N, height, width, crops in batches:
        drawn = sample_params(recipe, seed=seed, epoch=epoch, index_N=index_N, height=height, width=width)
        crops = [c.to(device, non_blocking=True) for c in crops]
        yield Batch(index_N, labels(shown_N), finish_views(crops, recipe, drawn, mean, std, compiled, dtype), skipped)


def prefetched(batches: Iterator[T], device: torch.device, own_stream: bool = False) -> Iterator[T]:
    """The same items, each made in a thread of its own while its user is busy with the one before."""
    side = SideStream(device, own_stream)
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(torch.set_num_threads, 1).result()
            torch.set_num_threads(threads)  # what any thread sets holds for all that begin later
            if device.index is not None:
                thread.submit(torch.cuda.set_device, device).result()
            make = partial(side.run, partial(next, batches, None), lambda item: getattr(item, "tensors", []))
            following = thread.submit(make)
            while (item := following.result()()) is not None:
                following = thread.submit(make)
                yield item
    finally:
        if isinstance(batches, Generator):
            batches.close()


def batch_index(images: int, batch: int, seed: int, step: int) -> tuple[int, Tensor]:
    """Epoch of ``step``, and which images its global batch holds."""
    return next(epoch_indices(images, batch, seed, step))


def epoch_indices(
    images: int, batch: int, seed: int, first: int, rank: int = 0, ranks: int = 1
) -> Iterator[tuple[int, Tensor]]:
    """Epoch and indices of a rank at every step from ``first`` on; the order of an epoch is worked out once."""
    per_epoch = images // batch
    epoch, start = divmod(first, per_epoch)
    while True:
        order = epoch_order(images, seed, epoch)
        for position in range(start, per_epoch):
            whole = order[position * batch : (position + 1) * batch]
            yield epoch, whole.tensor_split(ranks)[rank]
        epoch, start = epoch + 1, 0


def iterate_loader(items: Any, workers: int, **how: Any) -> Iterator[Any]:
    """The batches of a DataLoader of ``items``.

    Raises:
        UserError: an image that could be read at the start cannot be read now, or a worker was killed or did not start.
    """
    how["generator"] = torch.Generator()  # else each pass would draw from torch's own
    begun = False
    try:
        for batch in DataLoader(items, num_workers=workers, worker_init_fn=_leave_interrupts_to_parent, **how):
            begun = True
            yield batch
    except UserError as error:  # a worker's comes with its traceback
        raise UserError(str(error).rpartition("UserError: ")[2].strip()) from None
    except RuntimeError as error:
        said = str(error)
        in_worker = "bootstrapping phase" in said  # which runs the script and comes to the same call
        if not in_worker and "DataLoader worker" not in said:
            raise
        if in_worker or (not begun and _runs_script_again()):
            raise UserError(
                f"processes that decode images are started by {multiprocessing.get_start_method()!r} here, so each "
                'runs your script again. Put the call in it under if __name__ == "__main__": or give workers=0'
            ) from None
        problem = f"({said.splitlines()[0]}). If memory ran out, give fewer --workers"
        if "bus error" in said.lower():
            problem = (
                "with a bus error: /dev/shm, through which they hand over images, is full "
                f"({shared_memory() / 2**20:,.0f} MiB free). Give fewer --workers, or more shared memory (docker run "
                "--shm-size 8g)"
            )
        raise UserError(f"a process that decodes images ended {problem}. Training goes on with --resume") from None


def _runs_script_again() -> bool:
    """Whether a new process runs the main script, which does not ask whether it is the main one."""
    path = getattr(sys.modules["__main__"], "__file__", None)
    if path is None or multiprocessing.get_start_method() == "fork":
        return False
    try:
        return "__main__" not in Path(path).read_text(errors="replace")
    except OSError:
        return False


def _leave_interrupts_to_parent(_: int) -> None:
    """Ctrl-C reaches every process of a terminal; the run must still finish its step and be saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class _Crops:
    """(epoch, index) to the crops of that image, or of the one in its place, decoded once for all views."""

    images: LazySequence
    recipe: Recipe
    seed: int

    def __getitem__(self, key: tuple[int, int]) -> tuple[Any, ...]:
        epoch, i = key
        image, shown, skipped = show(self.images, i)
        height, width = image.shape[1:]
        drawn = sample_params(
            self.recipe, seed=self.seed, epoch=epoch, index_N=torch.tensor([i]), height=height, width=width
        )
        crops = [crop_one(image, group, d) for group, d in zip(self.recipe, drawn, strict=True)]
        return epoch, skipped, i, shown, height, width, crops


def _stack(rows: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    epochs, skipped, *numbers, crops = zip(*rows, strict=True)
    groups = [torch.stack(group, dim=1) for group in zip(*crops, strict=True)]
    return epochs[0], tuple(chain(*skipped)), *map(torch.tensor, numbers), groups


def plain_batches(
    split: Split,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    interpolation: str = "bicubic",
    batch: int = 512,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[Tensor]:
    """Every image of ``split`` in order, as normalised ``(B, C, size, size)``: the centre square, resized.

    A single batch is decoded without workers: starting them costs more than they save.
    """
    shift, scale = (upload(torch.tensor(t), device)[:, None, None] for t in (mean, std))
    if isinstance(split.images, Tensor):
        images = split.images.split(batch)
        parts = (
            centre_square(upload(x, device).to(torch.float32, copy=True).div_(255), size, interpolation) for x in images
        )
    else:
        squares = CentreCrops(split.images, size, interpolation)
        crops = iterate_loader(squares, workers if len(split) > batch else 0, batch_size=batch)
        parts = (upload(x, device).float().div_(255) for x in crops)
    for x in parts:
        yield (x - shift).div_(scale)


def centre_square(x_BCHW: Tensor, size: int, interpolation: str = "bicubic") -> Tensor:
    """The largest centred square of images in [0, 1], resized to ``size`` where it is not that already."""
    height, width = x_BCHW.shape[2:]
    side = min(height, width)
    if height == width == size:
        return x_BCHW
    box = [x_BCHW.new_full((1,), float(v)) for v in ((height - side) // 2, (width - side) // 2, side)]
    return ops.resized_crop(x_BCHW, box[0], box[1], box[2], box[2], size, interpolation).clamp_(0, 1)


@dataclass(frozen=True)
class CentreCrops:
    """Centre squares of images of any size, as uint8, for workers."""

    images: LazySequence
    size: int
    interpolation: str = "bicubic"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return centre_crop(self.images[i], self.size, self.interpolation)


def centre_crop(x_CHW: Tensor, size: int, interpolation: str) -> Tensor:
    """The largest centred square of a uint8 image, resized to ``size`` pixels."""
    from torchvision.transforms.v2 import functional as tv

    (height, width), side = x_CHW.shape[1:], min(x_CHW.shape[1:])
    if height == width == size:
        return x_CHW
    x = tv.crop(x_CHW, (height - side) // 2, (width - side) // 2, side, side)
    return tv.resize(x, [size, size], interpolation=tv.InterpolationMode(interpolation), antialias=True)
