"""Taking a step again that was not finite, from the state before it, to see where it went wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from torch import Tensor, nn

from frossl.core.distributed import world_size
from frossl.core.files import write_safetensors
from frossl.core.length import Length
from frossl.core.progress import Progress
from frossl.core.types import UserError
from frossl.data.loader import training_batches
from frossl.nn.modes import eval_mode
from frossl.runs.checkpoint import load_checkpoint
from frossl.runs.data import for_training, open_run_data
from frossl.runs.directory import FAILED, read_run, refuse_without_own
from frossl.train.loop import build
from frossl.train.probe import OnlineProbe
from frossl.train.ranks import start
from frossl.train.state import TrainingState
from frossl.train.step import NonFiniteError, Stepper


@dataclasses.dataclass(frozen=True)
class Replayed:
    """What a bad step came to when it was taken again."""

    step: int
    images: list[int]
    values: dict[str, float]
    """loss, terms and gradient norm; empty if all of them were finite this time"""
    module: str
    """the first module whose output was not finite though its input was; empty if none"""
    culprits: list[int]
    """images whose views or whose own features are not finite"""


def replay(
    run: Path, *, backbone: nn.Module | None = None, device: str = "auto", console: Console | None = None
) -> Replayed:
    """Makes the batch of the bad step of ``run`` again from the numbers of its images and takes the step.

    The batch is left in ``nonfinite/batch.safetensors``. A run of a module of one's own needs one like it as
    ``backbone``.

    Raises:
        UserError: no step of the run was not finite, or its data are no longer the same.
    """
    console = console or Console(quiet=True)
    config, _ = read_run(run)
    if backbone is None:
        refuse_without_own(run)
    path = run / FAILED / "step.json"
    if not path.exists():
        raise UserError(f"{run} has no step to take again: {path} is written when a loss or gradient is not finite")
    found = json.loads(path.read_text())
    config = dataclasses.replace(config, device=device)
    fabric = start(config)
    if world_size() > 1:
        raise UserError("a step is taken again in one process; start it without torchrun")
    data = for_training(config, open_run_data(config))
    learner, plan = build(config, data, backbone)
    probe = OnlineProbe(plan.spec.features, len(data.classes)).to(plan.device) if data.classes else None
    stepper = Stepper(learner, plan, fabric, probe)
    state = load_checkpoint(run / FAILED / found["state"])
    step, images = found["step"], len(data.train)
    batch = next(
        training_batches(
            data,
            plan.recipe,
            batch=plan.batch,
            seed=config.seed,
            first_step=step,
            device=plan.device,
            compiled=config.compile_views,
        )
    )
    if batch.index_N.tolist() != found["images"]:
        raise UserError(f"{run}: the data changed; step {step} would now have other images than it had")
    tensors = {f"views_{i}": x for i, x in enumerate(batch.views)} | {"images": batch.index_N}
    write_safetensors(run / FAILED / "batch.safetensors", tensors, {"step": str(step)})
    length = Length.parse(state["length"])
    progress = Progress(length, length.steps(batch=plan.batch, images=images))
    TrainingState(progress, learner, stepper.optimizer, probe).load_state_dict(state)
    learner.train()
    first, values = _First(learner), {}
    stepper(batch, step, progress.share, step / (images // plan.batch))
    first.remove()
    try:
        stepper.check()
    except NonFiniteError as error:
        values = error.values
    result = Replayed(
        step, found["images"], values, first.name, _culprits(learner.backbone, batch.views, batch.index_N)
    )
    _show(console, result, run)
    return result


class _First:
    """Finds the first module with a finite input and an output that is not."""

    def __init__(self, root: nn.Module) -> None:
        self.name = ""
        self.handles = [
            module.register_forward_hook(self._hook(name))
            for name, module in root.named_modules()
            if not any(module.children())
        ]

    def _hook(self, name: str):
        def look(module: nn.Module, inputs: tuple, output: object) -> None:
            finite = [bool(torch.isfinite(x).all()) for x in (*inputs, output) if isinstance(x, Tensor)]
            if not self.name and finite and not finite[-1] and all(finite[:-1]):
                self.name = name

        return look

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


@torch.no_grad()
def _culprits(encoder: nn.Module, views: list[Tensor], index_N: Tensor) -> list[int]:
    """Images that are not finite by themselves: as pixels, or as features in eval mode, where none sees another."""
    dtype = next(encoder.parameters()).dtype
    fine = torch.ones(len(index_N), dtype=torch.bool)
    with eval_mode(encoder):
        for x in views:
            for view in x:
                fine &= (view.flatten(1).isfinite().all(1) & encoder(view.to(dtype)).isfinite().all(1)).cpu()
    return index_N[~fine].tolist()


def _show(console: Console, result: Replayed, run: Path) -> None:
    if not result.values:
        console.print(f"step {result.step} was finite this time: on this machine the cause does not show")
        return
    console.print(f"step {result.step}: " + ", ".join(f"{name} {value:.4g}" for name, value in result.values.items()))
    if result.module:
        console.print(f"first output that is not finite: {escape(result.module)}")
    if result.culprits:
        console.print(f"images that are not finite by themselves: {', '.join(map(str, result.culprits))}")
    console.print(f"its batch: {escape(str(run / FAILED / 'batch.safetensors'))}", soft_wrap=True)
