"""Estimates whether a step fits in memory, and the largest part of a batch that does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from frossl.core.device import HALF, fits, fork_random, free_memory
from frossl.core.distributed import all_reduce_max, world_size
from frossl.data.loader import training_batches
from frossl.data.types import Dataset
from frossl.train.learner import Learner, place
from frossl.train.loop import measure_step
from frossl.train.plan import Plan
from frossl.train.step import NoMemoryError, recompute_activations

if TYPE_CHECKING:
    from lightning_fabric import Fabric

USABLE = 0.85
"""Fraction of the free memory that a step may take."""
WORKSPACE = 1.5
"""Memory of a backward pass over that of the activations; measured 1.1 to 1.4 (benchmarks/micro_batch.py)."""


def free_bytes(device: torch.device) -> float:
    """Free memory of ``device``, on a CPU that of the control group if less; infinite if unknown."""
    if device.type == "cuda":
        return free_memory(device)
    if device.type != "cpu":
        return math.inf
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    free = next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return min(free, float(limit) - float(used)) if limit != "max" else free
    except (OSError, ValueError):
        return free


def kept_bytes(learner: Learner, views: list[Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass of the encoder over ``views``, without parameters."""
    storages: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        alive = [learner.encode(learner.backbone, x) for x in views]
    del alive
    own = {p.untyped_storage().data_ptr() for p in learner.parameters()}
    return sum(size for address, size in storages.items() if address not in own)


@dataclass(frozen=True)
class Need:
    """Bytes of a step: per image encoded at once, and independent of their number; and free bytes."""

    image: float
    fixed: float
    free: float

    def step(self, images: int) -> float:
        """Bytes of a step that encodes ``images`` at once."""
        return self.fixed + images * self.image

    @property
    def most(self) -> float:
        """The number of images at once that fit, less than 1 if none does."""
        room = max(0.0, USABLE * self.free - self.fixed)
        return room / self.image if self.image else math.inf  # autograd keeps nothing for a bias alone


def need(learner: Learner, plan: Plan, data: Dataset) -> Need:
    """Estimates from the activations of two images, and the sizes of parameters, optimiser state and views."""
    place(learner, plan)
    dtype = torch.float64 if plan.precision == "64" else plan.view_dtype
    was = learner.training
    if plan.config.activation_checkpointing:
        recompute_activations(learner.backbone)
    batch = next(training_batches(data, plan.recipe, batch=2, seed=plan.config.seed, device=plan.device, dtype=dtype))
    before = [b.clone() for b in learner.buffers()]
    half = HALF.get(plan.precision)
    with fork_random(plan.device), torch.autocast(plan.device.type, half, half is not None):
        image = WORKSPACE * kept_bytes(learner.train(), batch.views) / 2
    for buffer, value in zip(learner.buffers(), before, strict=True):
        buffer.copy_(value)
    learner.train(was)
    parameters = sum(p.numel() * p.element_size() for p in learner.parameters() if p.requires_grad)
    views = sum(x.numel() * x.element_size() for x in batch.views) / 2 * plan.batch / world_size()
    images = data.train.images
    resident = images.nbytes if isinstance(images, Tensor) and fits(images, plan.device) else 0
    return Need(image, 4 * parameters + 2 * views + resident, free_bytes(plan.device))


def fit(learner: Learner, plan: Plan, data: Dataset, fabric: Fabric, tell: Callable[[str], None]) -> tuple[float, Plan]:
    """Measures a step: its seconds, and the plan, with a micro-batch if the batch does not fit in memory.

    Batch norms of the encoder would take the statistics of a part, so with them there is no micro-batch.

    Raises:
        NoMemoryError: a step does not fit, or only in parts that change the model.
    """
    found = need(learner, plan, data)
    shard = math.ceil(plan.batch / world_size())
    most = max(1, int(-all_reduce_max(-min(found.most, 1e9))[0]))
    at_once = min(plan.config.micro_batch or shard, shard)
    size = f"about {found.step(at_once) / 2**30:.2g} GiB"
    if math.isfinite(found.free):
        size += f" of {found.free / 2**30:.3g} GiB free; up to {most:,} images at once would fit"
    tell(f"memory of a step: {size}")
    if plan.config.micro_batch is None and most < shard:
        plan = _in_parts(learner, plan, most, f"the batch of {shard} does not fit, by an estimate", tell)
    try:
        return measure_step(learner, plan, data, fabric), plan
    except NoMemoryError:
        if plan.config.micro_batch is not None or world_size() > 1:
            raise
        half = max(1, min(most, shard) // 2)
        plan = _in_parts(learner, plan, half, f"out of memory with {shard} images at once", tell)
    return measure_step(learner, plan, data, fabric), plan


def _in_parts(learner: Learner, plan: Plan, images: int, why: str, tell: Callable[[str], None]) -> Plan:
    """``plan`` with a micro-batch of ``images``; raises NoMemoryError if the encoder has batch norms."""
    norms = [m for m in learner.backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    if norms:
        raise NoMemoryError(
            f"{why}; parts of {images} would (--micro-batch {images}). But each of the encoder's {len(norms)} batch "
            "norms then takes the statistics of a part, which is another model. Give that if you mean it, a smaller "
            f"--batch, or --activation-checkpointing; --micro-batch {plan.batch} tries the whole batch all the same"
        )
    tell(f"[yellow]{why}: encoding {images} images at once (--micro-batch {images})[/]")
    return replace(plan, config=replace(plan.config, micro_batch=images))
