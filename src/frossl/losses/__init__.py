"""Objectives: pure functions of embeddings ``(V, N, D)`` that give a ``Loss``; :data:`LOSSES` has them by name.

A function hides the module of its name here: ``frossl.losses.vicreg`` is the loss.

In a process group a loss is that of the global batch, on every rank, and its gradient is scaled for the mean over ranks
that DistributedDataParallel takes; without that mean, divide it by the number of ranks. Every loss takes ``group=``: a
process group whose ranks share a batch, or "local", where each rank has its own.
"""

from __future__ import annotations

import importlib
import pkgutil

from frossl.losses.base import LOSSES, LossModule

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
globals().update(LOSSES.items())  # also those that are not listed below, which is for type checkers

from frossl.losses.barlow_twins import barlow_twins  # noqa: E402
from frossl.losses.byol import byol  # noqa: E402
from frossl.losses.corinfomax import corinfomax  # noqa: E402
from frossl.losses.cross_entropy import cross_entropy  # noqa: E402
from frossl.losses.dcl import dcl  # noqa: E402
from frossl.losses.dino import dino  # noqa: E402
from frossl.losses.empssl import empssl  # noqa: E402
from frossl.losses.frossl import frossl  # noqa: E402
from frossl.losses.ivne import ivne  # noqa: E402
from frossl.losses.mmcr import mmcr  # noqa: E402
from frossl.losses.moco import moco  # noqa: E402
from frossl.losses.ntxent import ntxent  # noqa: E402
from frossl.losses.sigreg import sigreg  # noqa: E402
from frossl.losses.simsiam import simsiam  # noqa: E402
from frossl.losses.supcon import supcon  # noqa: E402
from frossl.losses.swav import sinkhorn, swav  # noqa: E402
from frossl.losses.vicreg import vicreg  # noqa: E402
from frossl.losses.wmse import wmse  # noqa: E402

__all__ = [
    "LOSSES",
    "LossModule",
    "barlow_twins",
    "byol",
    "corinfomax",
    "cross_entropy",
    "dcl",
    "dino",
    "empssl",
    "frossl",
    "ivne",
    "mmcr",
    "moco",
    "ntxent",
    "sigreg",
    "simsiam",
    "sinkhorn",
    "supcon",
    "swav",
    "vicreg",
    "wmse",
]
