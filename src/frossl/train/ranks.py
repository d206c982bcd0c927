"""One process or many: how its ranks come together."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from frossl.core.distributed import RankError, join_error, world_size
from frossl.core.launch import Launch, launched
from frossl.core.types import UserError
from frossl.runs.config import Config
from frossl.train.plan import device_of, find_precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric


PRECISIONS = {"64": "64-true", "32": "32-true", "bf16": "bf16-mixed"}
"""Fabric's names of the precisions."""
START_UP = 600.0
"""Seconds in which all ranks must have come, connected and taken their first steps."""


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
    fabric = Fabric(
        accelerator=device.type,
        devices=1 if device.index is None else [device.index],
        num_nodes=here.ranks,
        precision=PRECISIONS[find_precision(config.precision, device)],  # type: ignore[arg-type]
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
