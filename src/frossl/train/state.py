"""What a checkpoint holds: everything that decides how a run goes on. The schedule is a function of the position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from frossl.core.config import to_plain
from frossl.core.device import start_counting_memory
from frossl.core.length import Length
from frossl.core.machine import environment
from frossl.core.progress import Progress
from frossl.data import Dataset
from frossl.nn.optim import start_momentum
from frossl.runs.checkpoint import random_state, set_random_state
from frossl.train.learner import Learner
from frossl.train.plan import Plan
from frossl.train.probe import OnlineProbe
from frossl.train.schedule import saved_progress
from frossl.train.step import Stepper
from frossl.train.telemetry import Telemetry, context_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass
class TrainingState:
    """The parts of a run that change while it trains."""

    progress: Progress
    stepper: Stepper
    telemetry: Telemetry

    def state_dict(self) -> dict[str, Any]:
        """Nested dictionaries and lists of tensors and JSON values, as checkpoints take them."""
        stepper, probe, scale = self.stepper, self.stepper.probe, self.stepper.scale
        return {
            "step": self.progress.step,
            "seconds": self.progress.seconds,
            "best": self.progress.best,
            "length": str(self.progress.length),
            "extensions": to_plain(self.progress.extensions),
            "environment": environment(),
            "random": random_state(),
            "learner": stepper.learner.state_dict(),
            "optimizer": stepper.optimizer.state_dict(),
            "probe": probe and [probe.state_dict(), probe.optimizer.state_dict()],
            "telemetry": self.telemetry.state_dict(),
            "loss_scale": scale and scale.state,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict` for modules that were built alike; :func:`set_up` restores the progress."""
        optimizer, probe = self.stepper.optimizer, self.stepper.probe
        self.stepper.learner.load_state_dict(saved["learner"])
        optimizer.load_state_dict(saved["optimizer"])
        for p, values in optimizer.state.items():
            for name, value in values.items():
                if isinstance(value, Tensor) and value.shape == p.shape:  # in the memory format of the parameter
                    values[name] = torch.empty_like(p).copy_(value)
        start_momentum(optimizer)
        if probe is not None:
            probe.load_state_dict(saved["probe"][0])
            probe.optimizer.load_state_dict(saved["probe"][1])
        self.telemetry.load_state_dict(saved["telemetry"])
        if self.stepper.scale is not None:
            self.stepper.scale.state.copy_(saved["loss_scale"])
        set_random_state(saved["random"])


def set_up(
    learner: Learner,
    plan: Plan,
    data: Dataset,
    length: Length,
    fabric: Fabric,
    saved: dict[str, Any] | None = None,
    start: nn.Module | None = None,
) -> TrainingState:
    """The state of a run of ``length``, or that of the checkpoint ``saved``; ``start`` is the encoder it began with."""
    counts = {"batch": plan.batch, "images": len(data.train)}
    probe = OnlineProbe(plan.spec.features, len(data.classes)).to(plan.device) if data.classes else None
    stepper = Stepper(learner, plan, fabric, probe, start if plan.config.anchor else None)
    track = Length.parse(plan.config.track_eigenvalues or "0it").steps(**counts)
    telemetry = Telemetry(learner.method, context_of(plan), plan.config.telemetry_every, track or 0)
    progress = saved_progress(saved, **counts) if saved else Progress(length, length.steps(**counts))
    state = TrainingState(progress, stepper, telemetry)
    if saved is not None:
        state.load_state_dict(saved)
    start_counting_memory()
    return state
