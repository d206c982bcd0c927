"""Repeats a step that was not finite from the state before it, to find the cause."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from torch import Tensor, nn

from frossl.core.distributed import world_size
from frossl.core.files import write_safetensors
from frossl.core.length import Length
from frossl.core.types import UserError
from frossl.nn.modes import eval_mode
from frossl.report import terminal
from frossl.runs.checkpoint import load_checkpoint
from frossl.runs.data import find_run_data, for_training
from frossl.runs.directory import FAILED, read_run, require_own
from frossl.runs.encoders import start_weights
from frossl.runs.record import read_config
from frossl.train.loop import build, rank_batches
from frossl.train.ranks import start
from frossl.train.resources import device_of
from frossl.train.schedule import method_progress, recipe_at
from frossl.train.state import set_up
from frossl.train.step import NonFiniteError


@dataclasses.dataclass(frozen=True)
class Replayed:
    """The result of repeating a step that was not finite."""

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
    """Makes the batch of the step of ``run`` that was not finite from the numbers of its images and repeats the step.

    Writes the batch to ``nonfinite/batch.safetensors``. The run of a module of your own needs one as ``backbone``.

    Raises:
        UserError: all steps of the run were finite, its data changed, or the device does not have its precision.
    """
    console = console or Console(quiet=True)
    require_own(run, backbone)
    config = dataclasses.replace(read_run(run)[0], device=device)
    path = run / FAILED / "step.json"
    if not path.exists():
        raise UserError(f"{run} has no step to take again: {path} is written when a loss or gradient is not finite")
    found = json.loads(path.read_text())
    there, precision = read_config(run)["device"], config.precision
    if precision == "tf32" and device_of(config).type != torch.device(there).type:
        raise UserError(
            f"{run} was trained on {there} in {precision}, which {device_of(config)} has not: a step is taken again as "
            "it was, on the kind of device that took it"
        )
    fabric = start(config)
    if world_size() > 1:
        raise UserError("a step is taken again in one process; start it without torchrun")
    data = for_training(config, find_run_data(run, config))
    learner, plan = build(config, data, backbone, start_weights(config, run))
    step = found["step"]
    saved = load_checkpoint(run / FAILED / found["state"])
    state = set_up(learner, plan, data, Length.parse(saved["length"]), fabric, saved)
    batch = next(rank_batches(data, dataclasses.replace(plan, workers=0), step, recipe_at(plan, state.progress)))
    if batch.index_N.tolist() != found["images"]:
        raise UserError(f"{run}: the data changed; step {step} would now have other images than it had")
    tensors = {f"views_{i}": x for i, x in enumerate(batch.views)} | {"images": batch.index_N}
    write_safetensors(run / FAILED / "batch.safetensors", tensors, {"step": str(step)})
    learner.train()
    values: dict[str, float] = {}
    with _nonfinite_modules(learner) as modules:
        state.stepper(batch, step, method_progress(state.progress), step / (len(data.train) // plan.batch))
    try:
        state.stepper.check()
    except NonFiniteError as error:
        values = error.values
    culprits = _nonfinite_images(learner.backbone, batch.views, batch.index_N)
    result = Replayed(step, found["images"], values, next(iter(modules), ""), culprits)
    _show(console, result, run)
    return result


@contextmanager
def _nonfinite_modules(root: nn.Module) -> Iterator[list[str]]:
    """Collects the names of modules whose output is not finite though their input is."""
    found: list[str] = []
    names = {module: name for name, module in root.named_modules()}

    def check(module: nn.Module, inputs: tuple, output: object) -> None:
        finite = [bool(torch.isfinite(x).all()) for x in (*inputs, output) if isinstance(x, Tensor)]
        if finite and not finite[-1] and all(finite[:-1]):
            found.append(names[module])

    handles = [module.register_forward_hook(check) for module in names if not any(module.children())]
    yield found
    for handle in handles:
        handle.remove()


@torch.no_grad()
def _nonfinite_images(encoder: nn.Module, views: list[Tensor], index_N: Tensor) -> list[int]:
    """Images whose pixels are not finite, or whose features in eval mode, where no image affects another."""
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
    terminal.wrote(console, "its batch:", run / FAILED / "batch.safetensors")
