"""One process or many: how a run is launched, and how its ranks agree."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

from frossl.core.device import Precision, settle
from frossl.core.distributed import set_timeout, world_size
from frossl.core.types import UserError
from frossl.runs.config import Config
from frossl.train.plan import device_of, find_precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric


PRECISIONS = {"64": "64-true", "32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""Fabric's names of the precisions."""


def launched() -> tuple[int, int]:
    """Number of processes that a launcher has started, in all and on this machine; 1 and 1 without a launcher.

    Raises:
        UserError: the environment speaks of several ranks without saying which of them this process is.
    """
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if TorchElasticEnvironment.detect():
        return int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if SLURMEnvironment.detect() and "SLURM_PROCID" in os.environ:
        ranks = int(os.environ["SLURM_NTASKS"])
        return ranks, int(os.environ.get("SLURM_NTASKS_PER_NODE", ranks))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but torchrun's other variables are missing; start several "
            "ranks with torchrun --nproc-per-node N -m frossl.cli pretrain ..., or with srun"
        )
    return 1, 1


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
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    ranks, local = launched()
    device = device_of(config)
    precision = find_precision(config.precision, device)
    settle(device, precision, config.deterministic)
    fabric = Fabric(
        accelerator=device.type,
        devices=local if ranks > 1 or device.index is None else [device.index],
        num_nodes=ranks // local,
        **_precision(precision, device),
        strategy="auto"
        if ranks == 1
        else DDPStrategy(
            timeout=timedelta(seconds=config.rank_timeout), find_unused_parameters=True, broadcast_buffers=False
        ),
    )
    fabric.launch()
    if not fabric.world_size == world_size() == ranks:
        raise UserError(
            f"{ranks} ranks were launched, but {fabric.world_size} train together: each would train alone. Start them "
            "with torchrun --nproc-per-node N -m frossl.cli pretrain ..., or with srun"
        )
    set_timeout(config.rank_timeout)
    return fabric
