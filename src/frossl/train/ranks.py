"""One process or many: how its ranks come together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch

from frossl.core.device import Precision, settle
from frossl.core.distributed import (
    broadcast_object,
    heartbeat,
    join_error,
    run_on_rank_zero,
    run_with_heartbeat,
    world_size,
)
from frossl.core.launch import Launch, launched
from frossl.core.types import UserError
from frossl.data.scan import noted
from frossl.runs.config import Config
from frossl.train.resources import device_of, find_precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric


T = TypeVar("T")
PRECISIONS = {"64": "64-true", "32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""Fabric's names of the precisions."""
START_UP = 600.0
"""Seconds in which all ranks must have come, connected and taken their first steps."""


def _precision(precision: Precision, device: torch.device) -> dict[str, Any]:
    """What makes Fabric compute in ``precision``.

    Of half precisions Fabric would turn views back to float32, and it would scale the loss of fp16 by itself, which is
    done where the step is judged (:mod:`frossl.train.scaling`).
    """
    from lightning_fabric.plugins import MixedPrecision

    class Autocast(MixedPrecision):
        def convert_input(self, data: Any) -> Any:
            return data

    name = PRECISIONS[precision]
    if precision == "fp16":
        return {"plugins": Autocast("16-mixed", device.type, scaler=torch.amp.GradScaler(device.type, enabled=False))}  # pyright: ignore[reportPrivateImportUsage]
    if precision == "bf16" and device.type != "cpu":
        return {"plugins": Autocast("bf16-mixed", device.type)}
    return {"precision": name}


def start(config: Config) -> Fabric:
    """A launched Fabric. With several ranks the strategy is DDP, also on processors, where Fabric's default is none.

    Parameters that a step leaves out are looked for, since prototypes are frozen at first; so buckets of gradients
    stay as they are laid out at the start, and a resumed run adds in the same order. Buffers are not copied from the
    first rank, as batch norms are shared already, or meant to differ.

    Raises:
        UserError: launcher and Fabric do not agree on the number of ranks, so that some would train alone.
        RankError: not all ranks came within :data:`START_UP`.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    here = launched()
    device = device_of(config)
    precision = find_precision(config.precision, device)
    settle(device, precision, config.deterministic)
    fabric = Fabric(
        accelerator=device.type,
        devices=1 if device.index is None else [device.index],
        num_nodes=here.ranks,
        **_precision(precision, device),
        strategy="auto"
        if here.ranks == 1
        else DDPStrategy(
            cluster_environment=_environment(here),
            timeout=timedelta(seconds=START_UP),
            find_unused_parameters=True,
            broadcast_buffers=False,
        ),
    )
    try:
        fabric.launch()
    except RuntimeError as error:
        raise (join_error(error, here.rank, here.ranks, START_UP) or error) from None
    if not fabric.world_size == world_size() == here.ranks:
        raise UserError(
            f"{here.ranks} ranks were launched, but {fabric.world_size} train together: each would train alone. Start "
            "them with --devices N, with torchrun --nproc-per-node N -m frossl.cli pretrain ..., or with srun"
        )
    return fabric


Devices = Literal["auto"] | int
"""How many ranks on this machine, one on each device."""


def ranks_here(devices: Devices | None, config: Config) -> int:
    """How many ranks to start on this machine; 1 for none but this process. ``auto`` is one on each GPU.

    Raises:
        UserError: there are fewer GPUs, or ranks were started already.
    """
    if devices is None:
        return 1
    if launched().ranks > 1:
        raise UserError("--devices starts ranks, but torchrun or srun has started these; leave it out")
    gpus = torch.cuda.device_count() if device_of(config).type == "cuda" else None
    wanted = (gpus or 1) if devices == "auto" else devices
    if wanted < 1 or (gpus is not None and wanted > gpus):
        raise UserError(f"--devices {wanted}: give {'1 or more' if gpus is None else f'1 to {gpus}'}, or auto")
    return wanted


@contextmanager
def joined(config: Config) -> Iterator[Fabric]:
    """The ranks that were launched, together; meanwhile one that dies or freezes ends them all."""
    fabric = start(config)
    with heartbeat(config.rank_timeout):
        yield fabric


def open_together(opened: Callable[[], T]) -> T:
    """What ``opened`` gives on each rank, and on the first before the others: what is fetched is fetched once.

    Only the first looks through all images; the others take over what it found.
    """
    with noted() as scans:
        first = run_on_rank_zero(opened)
    with noted(broadcast_object(scans)):
        return run_with_heartbeat(lambda: first or opened())


def _environment(here: Launch) -> Any:
    """Tells Fabric that each rank is a machine with one device, which it has chosen already."""
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if here.slurm:
        nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "localhost")
        step = 10 * int(os.environ.get("SLURM_JOB_ID", "0")) + int(os.environ.get("SLURM_STEP_ID", "0"))
        os.environ.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
        os.environ.setdefault("MASTER_PORT", str(15000 + step % 15000))

    class Environment(TorchElasticEnvironment):
        def world_size(self) -> int:
            return here.ranks

        def global_rank(self) -> int:
            return here.rank

        def local_rank(self) -> int:
            return 0

        def node_rank(self) -> int:
            return here.rank

        def validate_settings(self, num_devices: int, num_nodes: int) -> None:
            pass

    return Environment()
