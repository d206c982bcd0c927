"""Objectives: pure functions of embeddings ``(V, N, D)`` that give a ``Loss``; :data:`LOSSES` has them by name.

A function hides the module of its name here: ``frossl.losses.vicreg`` is the loss.

In a process group a loss is that of the global batch, on every rank, and its gradient is scaled for the mean over ranks
that DistributedDataParallel takes; without that mean, divide it by the number of ranks. Every loss takes ``group=``: a
process group whose ranks share a batch, or "local", where each rank has its own.
"""

from frossl.losses.barlow_twins import barlow_twins as barlow_twins
from frossl.losses.base import LOSSES as LOSSES
from frossl.losses.base import LossModule as LossModule
from frossl.losses.byol import byol as byol
from frossl.losses.corinfomax import corinfomax as corinfomax
from frossl.losses.cross_entropy import cross_entropy as cross_entropy
from frossl.losses.dcl import dcl as dcl
from frossl.losses.dino import dino as dino
from frossl.losses.empssl import empssl as empssl
from frossl.losses.frossl import frossl as frossl
from frossl.losses.ivne import ivne as ivne
from frossl.losses.mmcr import mmcr as mmcr
from frossl.losses.moco import moco as moco
from frossl.losses.ntxent import ntxent as ntxent
from frossl.losses.sigreg import sigreg as sigreg
from frossl.losses.simsiam import simsiam as simsiam
from frossl.losses.supcon import supcon as supcon
from frossl.losses.swav import sinkhorn as sinkhorn
from frossl.losses.swav import swav as swav
from frossl.losses.vicreg import vicreg as vicreg
from frossl.losses.wmse import wmse as wmse
