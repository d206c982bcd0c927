"""Encoders that came as modules and that timm can build too: runs of them need no Python to go on."""

from __future__ import annotations

import dataclasses

from torch import nn

from frossl.core.types import UserError
from frossl.data import Dataset
from frossl.nn.alike import alike, timm_name
from frossl.nn.backbones import SMALL_STEMS
from frossl.runs.config import Config
from frossl.train.plan import make_plan


def by_name(config: Config, data: Dataset, own: nn.Module) -> Config | None:
    """``config`` with the name, stem and options by which timm builds a module like ``own``; None if it does not.

    Options are those of ``config``, or none.
    """
    name = timm_name(own)
    for options in dict.fromkeys((config.backbone_options, "{}")) if name else ():
        for stem in ("imagenet", *SMALL_STEMS):
            named = dataclasses.replace(config, backbone=name, stem=stem, backbone_options=options)
            try:
                plan = make_plan(named, data)
                built = plan.spec.build()
            except UserError:  # no such stem or option, or it does not take these views
                continue
            sizes = {plan.spec.size, *(group.size for group in plan.recipe)}
            if alike(own, built, plan.spec.channels, sizes):
                return named
    return None
