"""One training step: forward, backward, guard, update.

A step whose loss or gradient is not finite changes nothing, and neither do later steps: parameters, optimiser, batch
norms, averaged networks, queues, running statistics and probe stay as they were before it. The device decides that; the
host reads it in :meth:`Stepper.check`, before rows are logged and checkpoints written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from frossl.core.distributed import Scope, average_gradients, gather, rank, sum_over_ranks, within, world_size
from frossl.core.random import seed_of
from frossl.core.types import Loss, UserError
from frossl.data.loader import Batch
from frossl.nn.batch_norm import BatchNormOverRanks
from frossl.nn.compiled import compile_networks
from frossl.nn.convolution import narrow_in_float32
from frossl.nn.optim import Anchor, step_if
from frossl.nn.snapshot import Snapshot
from frossl.train.learner import Learner, place
from frossl.train.plan import Plan
from frossl.train.probe import OnlineProbe
from frossl.train.scaling import LossScale

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class NonFiniteError(RuntimeError):
    """The loss or its gradient is not finite; nothing was updated at that step or after it."""

    def __init__(self, step: int, values: dict[str, float], images: list[int] | None = None) -> None:
        bad = [name for name, value in values.items() if name not in _SUMS and not math.isfinite(value)]
        what = f"the {' and '.join(bad)} term of the loss is" if bad else "the gradient of the loss is"
        some = ", ".join(map(str, images[:8])) + (" and others" if len(images) > 8 else "") if images else ""
        shown = f" Its images are {some}; frossl replay RUN looks for the cause." if some else ""
        super().__init__(
            f"step {step}: {what} not finite ({', '.join(f'{k} {v:.4g}' for k, v in values.items())}). Nothing was "
            f"updated then or later; the last checkpoint, if any, stands.{shown} Try a lower --lr, a longer --warmup, "
            "--clip 1, or --precision 32."
        )
        self.step, self.values, self.images = step, values, images or []


class NoMemoryError(UserError):
    """A step does not fit in the memory of the device."""


_SUMS = ("loss", "gradient norm")
Scalars = dict[str, Tensor]
Watch = Callable[[int, Tensor, Scalars], None]


class Stepper:
    """Takes training steps with ``learner``, which is moved to the device of ``fabric``.

    ``anchor`` is the encoder to which the trained one is pulled, if any.
    """

    def __init__(
        self,
        learner: Learner,
        plan: Plan,
        fabric: Fabric,
        probe: OnlineProbe | None = None,
        anchor: nn.Module | None = None,
    ) -> None:
        config = plan.config
        self.learner, self.probe, self.fabric = learner, probe, fabric
        self.seed, self.clip, self.synced = config.seed, config.clip, config.sync_batch_norm
        self.by_kernels = config.cuda_extras
        self.chunks, self.bf16 = plan.chunks, plan.precision == "bf16"
        self.shards = tuple(map(len, torch.arange(plan.batch).tensor_split(world_size())))
        self.recomputes = config.activation_checkpointing
        if self.recomputes:
            recompute_activations(learner.backbone)
        if config.compile:
            compile_networks(learner.networks(), plan.device, plan.precision)
        place(learner, plan)
        self.optimizer = learner.optimizer(plan)
        pairs = zip(learner.backbone.parameters(), anchor.parameters(), strict=True) if anchor is not None else ()
        self.anchor = Anchor(pairs, config.anchor)
        self.model, self.wrapped = fabric.setup(learner, self.optimizer)
        self.buffers = [*learner.changing_buffers(), *(probe.buffers() if probe else ())]
        self.before = Snapshot(self.buffers)
        self.scale = LossScale(fabric.device) if plan.precision == "fp16" else None
        self.good = torch.ones((), device=fabric.device)
        self.taken = torch.zeros((), dtype=torch.int64, device=fabric.device)
        self.first = 0
        self.names: list[str] = []
        self.values = torch.zeros(0, device=fabric.device)

    def __call__(self, batch: Batch, step: int, progress: float, epoch: float, watch: Watch | None = None) -> Scalars:
        """One step on this rank's shard of the global batch; ``step`` and the rank seed dropout.

        Before the update it calls ``watch`` with the number of the step from 1, the features, and loss, terms and norm.
        Returns these scalars on the device, and with a probe ``probe_on_views``: its accuracy on the views, NaN for a
        batch without labels.
        """
        self.before.save()
        try:
            with within(Scope(shards=self.shards)):
                return self._step(batch, step, progress, epoch, watch)
        except BaseException as error:
            self.before.restore()
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                self.optimizer.zero_grad()
                raise NoMemoryError(
                    f"a step does not fit in memory: {str(error).splitlines()[0]}. Give a smaller --micro-batch, or "
                    "--activation-checkpointing, with which a run can also go on (--resume)"
                ) from None
            if "deterministic" in str(error) and torch.are_deterministic_algorithms_enabled():
                said = str(error).partition(".")[0]
                raise UserError(f"--deterministic: {said}. Leave the flag out, or take another method") from None
            raise

    def _step(self, batch: Batch, step: int, progress: float, epoch: float, watch: Watch | None) -> Scalars:
        self.optimizer.zero_grad()
        loss, h_VNF = self._learn(batch, step, progress, epoch)
        values = {"loss": loss.total.detach(), **loss.terms, "grad_norm": gradient_norm(self.learner, self.clip)}
        good = self._judge(step, values)
        if watch is not None:
            with self._statistics():
                watch(step + 1, h_VNF, values)
        step_if(good, self.optimizer, self.wrapped.step)
        self.anchor.pull(self.optimizer, good)
        self.learner.remember(progress, good)
        if self.probe is not None and batch.labels_N is not None:
            labels_N = batch.labels_N
            if world_size() > 1:  # the probe is the same on all ranks
                labels_N, h_VNF = gather(labels_N), gather(h_VNF.detach(), dim=1)
            values["probe_on_views"] = self.probe.learn(h_VNF, labels_N, good)
        self.before.restore(good)
        return values if self.scale is None else values | {"loss_scale": self.scale.state[0]}

    def check(self) -> None:
        """Waits for the device.

        Raises:
            NonFiniteError: a step since the start was not finite; names the first, and the state is that before it.
        """
        if not bool(self.good):
            raise NonFiniteError(self.first + int(self.taken), dict(zip(self.names, self.values.tolist(), strict=True)))

    def _learn(self, batch: Batch, step: int, progress: float, epoch: float) -> tuple[Loss, Tensor]:
        """Computes the gradients of the global loss in all parameters; returns the loss and the features."""
        with self._statistics(), narrow_in_float32(self.learner, self.fabric.device, self.bf16):
            self._seed(step, 0)
            if self.chunks > 1:
                return self._in_chunks(batch, step, progress, epoch)
            total, h_VNF = self.model(batch.views, progress, epoch, batch.labels_N)
            with _kept(self.buffers if self.recomputes else []):
                self._backward(total)
            self._unscale()
            assert self.learner.loss is not None  # Fabric rounds what it returns to float32
            return self.learner.loss, h_VNF

    def _backward(self, total: Tensor) -> None:
        self.fabric.backward(total if self.scale is None else self.scale.scaled(total))

    def _unscale(self) -> None:
        if self.scale is not None:
            self.scale.unscale(self.learner.parameters())

    def _in_chunks(self, batch: Batch, step: int, progress: float, epoch: float) -> tuple[Loss, Tensor]:
        """The same with activations of the encoder for one part of the images at a time (Gao et al., arXiv 2101.06983).

        The encoder runs twice: without gradient, for the loss of the whole batch and its gradient in the features, and
        again part by part, to continue backward from there. A part has the same random numbers both times. Batch norms
        of the encoder take the statistics of a part; those of heads, of the whole batch.
        """
        learner, fabric = self.learner, self.fabric
        parts = [self._parts(x) for x in batch.views]
        with torch.no_grad(), fabric.autocast():
            h_VNF = torch.cat(
                [self._features(learner.backbone, x, at, step) for x, at in zip(batch.views, parts, strict=True)]
            )
            target_VNF = None
            if learner.target is not None:
                target_VNF = self._features(learner.target, batch.views[0], parts[0], step)
        h_VNF.requires_grad_()
        self._seed(step, 0)
        with fabric.autocast():
            loss = learner.objective(h_VNF, target_VNF, progress, epoch, batch.labels_N)
        self._backward(loss.total)
        with _kept(self.buffers):
            assert h_VNF.grad is not None
            for x, where, g in zip(batch.views, parts, h_VNF.grad.split([len(x) for x in batch.views]), strict=True):
                for i, at in enumerate(where):
                    with fabric.autocast():
                        h = self._part(learner.backbone, x[at], step, i)
                    torch.autograd.backward(h, g[at].to(h.dtype))
        average_gradients(learner.parameters())
        self._unscale()
        return loss, h_VNF

    def _parts(self, x_VNCHW: Tensor) -> list[tuple[slice, slice]]:
        """Views and images of each part: all views at once where batch norms are joint, else view by view."""
        views = [slice(None)] if self.learner.method.spec.joint else [slice(v, v + 1) for v in range(len(x_VNCHW))]
        images = torch.arange(x_VNCHW.shape[1]).tensor_split(self.chunks)
        return [(v, slice(int(i[0]), int(i[-1]) + 1)) for i in images if len(i) for v in views]

    def _features(self, network: nn.Module, x_VNCHW: Tensor, parts: list[tuple[slice, slice]], step: int) -> Tensor:
        """Features ``(V, N, F)``, part by part."""
        done = [self._part(network, x_VNCHW[at], step, number) for number, at in enumerate(parts)]
        h_VNF = done[0].new_empty(*x_VNCHW.shape[:2], done[0].shape[2])
        for at, h in zip(parts, done, strict=True):
            h_VNF[at] = h
        return h_VNF

    def _part(self, network: nn.Module, x_VNCHW: Tensor, step: int, number: int) -> Tensor:
        self._seed(step, 1 + number)
        dtype = next(network.parameters()).dtype
        return self.learner.encode(network, x_VNCHW.to(dtype) if dtype == torch.float64 else x_VNCHW)

    def _seed(self, step: int, part: int) -> None:
        """Makes random numbers of dropout and methods a function of seed, step, rank and part, and so repeatable."""
        torch.manual_seed(seed_of(self.seed, step, rank(), part))

    def _statistics(self) -> AbstractContextManager:
        return BatchNormOverRanks(self.by_kernels) if self.synced and world_size() > 1 else nullcontext()

    def _judge(self, step: int, values: Scalars) -> Tensor:
        """Records on the device whether all steps were finite, and the values of the first that was not.

        Returns whether to update: not after such a step, nor if the gradient overflowed in fp16, which is no failure.
        """
        if not self.names:
            self.first, self.names = step, [name.replace("grad_norm", "gradient norm") for name in values]
            self.values = self.values.new_zeros(len(values))
        bad = (~(torch.isfinite(values["loss"]) & torch.isfinite(values["grad_norm"]))).to(self.good)
        taken = sum_over_ranks(bad) == 0
        passed = taken if self.scale is None else taken | self.scale.overflow(values["loss"], values["grad_norm"])
        good = self.good * passed
        self.values = torch.where(self.good.bool(), torch.stack([*values.values()]).to(self.values), self.values)
        self.taken += good.to(self.taken.dtype)
        self.good = good
        return good if self.scale is None else good * taken


def read(scalars: Scalars) -> dict[str, float]:
    """The values of scalars, by one wait for the device."""
    return dict(zip(scalars, torch.stack([*scalars.values()]).tolist() if scalars else (), strict=True))


def measured(scalars: Scalars) -> dict[str, float]:
    """The finite values: without the accuracy of a batch without labels, and the norm of an overflow."""
    return {name: value for name, value in read(scalars).items() if math.isfinite(value)}


def gradient_norm(module: nn.Module, clip: float | None) -> Tensor:
    """L2 norm of all gradients before they are clipped to the norm ``clip``, if given."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if clip is not None:
        torch.nn.utils.clip_grads_with_norm_(module.parameters(), clip, norm)
    return norm


def recompute_activations(backbone: nn.Module) -> None:
    """Switches activation checkpointing on in ``backbone``.

    Raises:
        UserError: it does not support it, as timm's encoders do, or has batch norms over several ranks.
    """
    switch = getattr(backbone, "set_grad_checkpointing", None)
    if switch is None:
        raise UserError("--activation-checkpointing: this encoder has no set_grad_checkpointing, as those of timm have")
    if world_size() > 1 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in backbone.modules()):
        raise UserError(
            "--activation-checkpointing cannot repeat batch norms over several ranks; use --micro-batch, which can, or "
            "an encoder without batch norm"
        )
    switch(True)


@contextmanager
def _kept(buffers: list[Tensor]) -> Iterator[None]:
    """Restores ``buffers`` at exit, as a second pass must not update them again."""
    kept = [b.clone() for b in buffers]
    yield
    _copy(buffers, kept)


def _copy(to: list[Tensor], values: list[Tensor]) -> None:
    if to:
        torch._foreach_copy_(to, values)  # pyright: ignore[reportPrivateImportUsage]
