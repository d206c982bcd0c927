"""Reads encoders of runs and published ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from frossl.core.near import did_you_mean, is_clearly_a_path
from frossl.core.types import UserError
from frossl.data.options import Log, quiet
from frossl.nn.encoder import EncoderSpec, read_encoder
from frossl.nn.published import OWN_WEIGHTS, Architecture, Start, build_with_weights, for_images, read_published
from frossl.runs.config import Config, backbone_options
from frossl.runs.directory import START_FILE, Weights, encoder_of
from frossl.runs.record import is_run

RESNET18 = Architecture()


def read_any_encoder(
    where: str, *, net: Architecture = RESNET18, weights: Weights = "online", log: Log = quiet
) -> Start:
    """Weights and spec of an encoder: RUN, FILE, timm:NAME.TAG, hf-hub:ORG/NAME, FOLDER or lite0.

    ``net`` is the architecture for a file that does not name it; ``weights`` selects those of a run.

    Raises:
        UserError: see :func:`read_published`; a run has no encoder yet.
    """
    path = Path(where)
    named = ":" in where or not is_clearly_a_path(where)
    if not named and not path.exists() and (hint := did_you_mean(path)):
        raise UserError(f"no encoder {where!r} exists.{hint}")
    state, spec = read_encoder(encoder_of(path, weights)) if is_run(path) else read_published(where, net, log)
    return state, replace(spec, origin=spec.origin or OWN_WEIGHTS)


def start_weights(config: Config, run: Path | None = None, log: Log = quiet) -> Start | None:
    """Weights and spec from which training of ``config`` starts: the copy in ``run``, if it has one; None if random.

    A run never opens the path that its configuration names again, as the run may come from another machine.

    Raises:
        UserError: as :func:`read_any_encoder`.
    """
    if config.init is None:
        return None
    if run is not None and (run / START_FILE).exists():
        return read_encoder(run / START_FILE)
    if run is not None and is_run(run):
        raise UserError(f"{run} began with {config.init}, and {START_FILE}, its own copy, is gone: it cannot go on")
    net = Architecture(name=config.backbone, stem=config.stem, options=backbone_options(config.backbone_options))
    return read_any_encoder(config.init, net=net, log=log)


def load_any_encoder(
    where: str, *, channels: int | None = None, size: int | None = None, net: Architecture = RESNET18, log: Log = quiet
) -> tuple[nn.Module, EncoderSpec]:
    """The encoder of :func:`read_any_encoder` in eval mode, for other channels or size if given, and its spec."""
    state, spec = read_any_encoder(where, net=net, log=log)
    asked = for_images(spec, channels=channels or spec.channels, size=size or spec.size)
    return build_with_weights(state, spec, asked, log), asked
