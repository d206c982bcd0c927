"""Encoders for use elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from frossl.core.types import UserError
from frossl.nn.alike import random_images
from frossl.nn.backbones import SMALL_STEMS, sized_options
from frossl.nn.encoder import OWN, EncoderSpec, load_all_keys, read_encoder, save_encoder
from frossl.runs.directory import Weights, encoder_of, unfinished
from frossl.runs.onnx import write_onnx

Format = Literal["timm", "torchvision", "onnx"]


def export_encoder(run: Path, output: Path, format: Format = "timm", weights: Weights = "online") -> str:
    """Writes the encoder of ``run``, or its moving average, to ``output``; returns the Python that loads it there.

    The keys are timm's names, which torchvision shares for ResNets. The other library, or ONNX Runtime, must load the
    file and give the same features.

    Raises:
        UserError: no such run or average, another suffix than .safetensors or, for ``onnx``, .onnx, or the other
            library does not have the architecture or builds another one of that name.
    """
    suffix = ".onnx" if format == "onnx" else ".safetensors"
    if output.suffix != suffix:
        hint = ", or --format onnx" if output.suffix == ".onnx" else ""
        raise UserError(f"{output}: encoders are written as {suffix}; give a name that ends so{hint}")
    encoder, spec = encoder_for_others(run, weights)
    lines = write_onnx(output, encoder, spec) if format == "onnx" else _write_weights(output, encoder, spec, format)
    lines.append(f"# {spec.title}{', averaged weights' * (weights == 'averaged')}; feed it {feed(spec)}")
    return "\n".join([f"# {message}", *lines] if (message := unfinished(run)) else lines)


def encoder_for_others(run: Path, weights: Weights) -> tuple[nn.Module, EncoderSpec]:
    """The encoder of ``run``, or its moving average, in eval mode.

    Raises:
        UserError: no such run or average, or a module of the user's own.
    """
    path = encoder_of(run, weights)
    state, spec = read_encoder(path)
    if spec.backbone.startswith(OWN):
        raise UserError(
            f"{run} trained a module of your own, {spec.backbone.removeprefix(OWN)}, which other libraries have not: "
            f"load safetensors.torch.load_file({str(path)!r}) into one like it"
        )
    encoder = spec.build().eval()
    load_all_keys(encoder, state, str(path))
    return encoder, spec


def feed(spec: EncoderSpec) -> str:
    """A description of the input of an encoder."""
    mean, std = ([round(value, 6) for value in values] for values in (spec.mean, spec.std))
    scale = f"intensities {' '.join(f'{value:g}' for value in spec.range)} as" if spec.range else "images in"
    return f"{scale} [0, 1], {spec.size} pixels, minus {mean}, over {std}"


def in_timm(spec: EncoderSpec, encoder: nn.Module) -> tuple[nn.Module, list[str]]:
    """timm's net like ``encoder``, with random weights, and the Python that makes it as ``model``.

    Raises:
        UserError: the name of an option is no identifier.
    """
    import timm

    chosen = sized_options(spec.backbone, spec.size, spec.options)
    if strange := [key for key in chosen if not key.isidentifier()]:
        raise UserError(f"backbone options are names of timm's arguments, got {strange[0]!r}")
    options = "".join(f", {key}={value!r}" for key, value in chosen.items())
    call = f"timm.create_model({spec.backbone!r}, num_classes=0, in_chans={spec.channels}{options})"
    model = timm.create_model(spec.backbone, num_classes=0, in_chans=spec.channels, **chosen)
    lines = ["import safetensors.torch, timm, torch", f"model = {call}"]
    return model, lines + _replace_stem(model, encoder, spec)


def _in_torchvision(spec: EncoderSpec, encoder: nn.Module) -> tuple[nn.Module, list[str]]:
    from torchvision import models

    if spec.backbone not in models.list_models(module=models):
        raise UserError(f"torchvision has no {spec.backbone}; export for timm")
    model = models.get_model(spec.backbone)
    lines = ["import safetensors.torch, torch, torchvision", f"model = torchvision.models.{spec.backbone}()"]
    for head in ("fc", "classifier"):
        if hasattr(model, head):
            setattr(model, head, nn.Identity())
            lines.append(f"model.{head} = torch.nn.Identity()")
    channels = spec.channels != 3 and hasattr(model, "conv1")
    return model, lines + _replace_stem(model, encoder, spec, channels)


def _replace_stem(model: nn.Module, encoder: nn.Module, spec: EncoderSpec, channels: bool = False) -> list[str]:
    """Gives ``model`` the small stem of ``encoder``, or its first layer for other ``channels``; returns the Python."""
    small, lines = spec.stem in SMALL_STEMS, []
    if small or channels:
        conv = encoder.get_submodule("conv1")
        assert isinstance(conv, nn.Conv2d)
        sizes = conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0], conv.padding[0]
        model.conv1 = nn.Conv2d(*sizes, bias=False)
        lines.append(f"model.conv1 = torch.nn.Conv2d({', '.join(map(str, sizes))}, bias=False)")
    if small:
        model.maxpool = nn.Identity()
        lines.append("model.maxpool = torch.nn.Identity()")
    return lines


def _write_weights(output: Path, encoder: nn.Module, spec: EncoderSpec, format: Format) -> list[str]:
    """Writes the weights if they load into the model of the other library; raises UserError if its features differ."""
    model, lines = (_in_torchvision if format == "torchvision" else in_timm)(spec, encoder)
    source = f"{format}'s {spec.backbone}"
    if format == "torchvision":
        source += f" is another net than {spec.title} (export for timm)"
    load_all_keys(model, encoder.state_dict(), source)
    with torch.no_grad():
        ours, theirs = (m(random_images(spec.channels, spec.size, 2)) for m in (encoder, model.eval()))
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * ours.abs().max().item()):
        raise UserError(f"{source}: it takes the weights but gives other features")
    save_encoder(output, encoder, spec)
    return [*lines, f"model.load_state_dict(safetensors.torch.load_file({str(output)!r}))  # every key fits"]
