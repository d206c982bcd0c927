"""Starts a run in one process or as several ranks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch

from frossl.core.device import Precision, settle
from frossl.core.distributed import (
    broadcast_object,
    heartbeat,
    join_error,
    rank,
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
PRECISIONS = {"64": "64-true", "32": "32-true", "tf32": "32-true"}
"""Fabric's names of the precisions without autocast."""
START_UP = 600.0
"""Timeout in seconds for ranks to connect and take their first steps."""


def _precision(precision: Precision, device: torch.device) -> dict[str, Any]:
    """Arguments of Fabric for ``precision``.

    Autocast is a plugin, as Fabric prints a line about it where it is a name. On accelerators Fabric would convert
    views in half precision to float32, and would scale the loss of fp16, which the guard of the step does
    (:mod:`frossl.train.scaling`).
    """
    from lightning_fabric.plugins import MixedPrecision

    class Autocast(MixedPrecision):
        def convert_input(self, data: Any) -> Any:
            return data

    if precision == "fp16":
        return {"plugins": Autocast("16-mixed", device.type, scaler=torch.amp.GradScaler(device.type, enabled=False))}  # pyright: ignore[reportPrivateImportUsage]
    if precision == "bf16":
        kind = MixedPrecision if device.type == "cpu" else Autocast
        return {"plugins": kind("bf16-mixed", device.type)}
    return {"precision": PRECISIONS[precision]}


def start(config: Config) -> Fabric:
    """A launched Fabric; with several ranks its strategy is DDP, also on CPUs, where Fabric's default is none.

    DDP finds unused parameters, as prototypes are frozen at first. That also keeps its gradient buckets as they are at
    the start, so that a resumed run adds in the same order. It does not broadcast buffers: batch norms are
    synchronised, or differ on purpose.

    Raises:
        UserError: launcher and Fabric do not agree on the number of ranks, so that some would train alone.
        RankError: not all ranks connected within :data:`START_UP`.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    here = launched()
    device = device_of(config)
    precision = find_precision(config.precision, device)
    settle(device, precision, config.deterministic)
    # find_unused_parameters: prototypes may be frozen; and without it buckets would be laid out anew after a resume
    ddp = {"timeout": timedelta(seconds=START_UP), "find_unused_parameters": True, "broadcast_buffers": False}
    fabric = Fabric(
        accelerator=device.type,
        devices=1 if device.index is None else [device.index],
        num_nodes=here.ranks,
        strategy="auto" if here.ranks == 1 else DDPStrategy(cluster_environment=_environment(here), **ddp),
        **_precision(precision, device),
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
    """The number of ranks on this machine, 1 for this process alone; ``auto`` is one on each GPU.

    Raises:
        UserError: there are fewer GPUs, or ranks were started already.
    """
    if devices is None:
        return 1
    if launched().ranks > 1:
        raise UserError("--devices starts ranks, but torchrun or srun has started these; leave it out")
    gpus = torch.cuda.device_count() if device_of(config).type == "cuda" else None
    count = (gpus or 1) if devices == "auto" else devices
    if count < 1 or (gpus is not None and count > gpus):
        raise UserError(f"--devices {count}: give {'1 or more' if gpus is None else f'1 to {gpus}'}, or auto")
    return count


@contextmanager
def joined(config: Config) -> Iterator[Fabric]:
    """Starts Fabric on all ranks; until exit, a rank that dies or freezes ends all of them."""
    fabric = start(config)
    with heartbeat(config.rank_timeout):
        yield fabric


def require_same(resume: Path | None, options: dict[str, Any]) -> None:
    """Raises UserError on a rank that would do something else than the first, which would wait for it for ever."""
    mine = resume, options
    first = broadcast_object(mine)

    def check() -> None:
        if mine != first:
            raise UserError(
                f"rank {rank()} would go on with {resume or 'nothing'}, the first rank with {first[0] or 'nothing'}, "
                f"or their options differ ({', '.join(options)}): give all ranks the same command. If they have it, "
                "their machines see a shared disk differently for a moment: start them again"
            )

    run_with_heartbeat(check)


def load_on_all_ranks(load: Callable[[], T]) -> T:
    """Calls ``load`` on the first rank, and then on the others, so that downloads happen once.

    Only the first rank scans all images; the others get the results of the scan.
    """
    with noted() as scans:
        first = run_on_rank_zero(load)
    with noted(broadcast_object(scans)):
        return run_with_heartbeat(lambda: first or load())


def _environment(here: Launch) -> Any:
    """Describes each rank to Fabric as a machine with one device, which :func:`device_of` has chosen."""
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
