"""Exported encoders: weights and what is needed to build them again, in one safetensors file."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from frossl.core.config import from_plain, to_plain
from frossl.core.files import write_safetensors
from frossl.core.types import UserError
from frossl.nn.backbones import build_backbone

OWN = "own:"
"""Begins the name of an encoder that came as a module through the Python interface."""
_KEY = "frossl_encoder"


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """How to build an encoder and how to feed it: images in [0, 1], minus ``mean``, over ``std``, ``size`` pixels.

    ``range`` are the intensities of type ``values`` that are 0 and 1, a pair for all channels or one for each; none
    where they are bytes, 0 to 255. ``origin`` names the published weights that training started from, or that these
    are, and ``licence`` what they are under; nothing for weights that were random.
    """

    backbone: str
    channels: int
    size: int
    stem: str
    features: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    values: str = "uint8"
    range: tuple[float, ...] = ()
    interpolation: str = "bicubic"
    origin: str = ""
    licence: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """As :func:`encoder_title`."""
        return encoder_title(self.backbone, self.stem, self.options)

    def build(self) -> nn.Module:
        """The encoder with random weights.

        Raises:
            UserError: it was a module of the user's own, which only the user can build.
        """
        if self.backbone.startswith(OWN):
            name = self.backbone.removeprefix(OWN)
            raise UserError(f"this encoder is a module of your own, {name}: give one like it as backbone= in Python")
        return build_backbone(
            self.backbone, channels=self.channels, stem=self.stem, size=self.size, options=self.options
        )


def encoder_title(backbone: str, stem: str = "imagenet", options: Mapping[str, Any] = MappingProxyType({})) -> str:
    """The name of an encoder for people, with the options and the stem that set it apart from others of that name.

    >>> encoder_title("resnet18", "small", {"channels": [32, 64, 128, 256], "layers": [1, 1, 1, 1]})
    'resnet18 (channels 32, 64, 128, 256; layers 1, 1, 1, 1), small stem'
    >>> encoder_title("vit_tiny_patch16_224"), encoder_title("own:Net")
    ('vit_tiny_patch16_224', 'Net (own module)')
    """
    if backbone.startswith(OWN):
        return f"{backbone.removeprefix(OWN)} (own module)"
    values = {k: ", ".join(map(str, v)) if isinstance(v, list | tuple) else str(v) for k, v in options.items()}
    listed = "; ".join(f"{name} {value}" for name, value in values.items())
    return backbone + (f" ({listed})" if listed else "") + ("" if stem == "imagenet" else f", {stem} stem")


def save_encoder(path: Path, backbone: nn.Module, spec: EncoderSpec) -> None:
    """Writes the weights under timm's names, atomically, with ``spec`` in the header."""
    write_safetensors(path, dict(backbone.state_dict()), {_KEY: json.dumps(to_plain(spec))})


def load_encoder(path: Path | str, backbone: nn.Module | None = None) -> tuple[nn.Module, EncoderSpec]:
    """The encoder of :func:`save_encoder` in eval mode, and its spec.

    ``backbone`` is a module of the same architecture, whose weights stay as they are; needed where the encoder
    was a module of the user's own.

    Raises:
        UserError: not such a file, or not every key of the encoder is in it with the right shape.
    """
    state, spec = read_encoder(Path(path))
    backbone = spec.build() if backbone is None else copy.deepcopy(backbone)
    load_all_keys(backbone, state, str(path))
    return backbone.eval(), spec


def is_exported(path: Path) -> bool:
    """Whether a safetensors file is an encoder with its spec; False also for what is no such file."""
    try:
        with safe_open(path, framework="pt") as file:
            return _KEY in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def read_encoder(path: Path) -> tuple[dict[str, Tensor], EncoderSpec]:
    """Weights and spec of an exported encoder, without building it."""
    if path.is_dir():
        raise UserError(f"{path} is a directory; of a run, give its encoder.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}") from None
    if _KEY not in metadata:
        raise UserError(f"{path} is not an encoder exported by frossl: its header does not say how to build one")
    try:
        return state, from_plain(EncoderSpec, json.loads(metadata[_KEY]))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} does not describe its encoder in a way this version reads: {error}") from None


def load_all_keys(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Loads ``state`` if, and only if, it fits ``module`` to the last key.

    Raises:
        UserError: says how many keys fit, and the shapes of some that do not.
    """
    given, expected = ({key: tuple(x.shape) for key, x in each.items()} for each in (state, module.state_dict()))
    wrong = [key for key in given | expected if given.get(key) != expected.get(key)]
    if wrong:
        some = [f"{key} is {given.get(key, 'missing')}, expected {expected.get(key, 'none')}" for key in wrong[:3]]
        raise UserError(
            f"{source}: {len(expected.items() & given.items())} of {len(expected)} keys fit; {'; '.join(some)}"
            f"{' and others' if len(wrong) > 3 else ''}. Nothing was loaded."
        )
    module.load_state_dict(state)
