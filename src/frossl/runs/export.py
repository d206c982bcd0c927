"""Encoders for use elsewhere."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from frossl.core.types import UserError
from frossl.nn.backbones import SMALL_STEMS, sized_options
from frossl.nn.encoder import OWN, EncoderSpec, load_all_keys, read_encoder, save_encoder
from frossl.runs.directory import Weights, encoder_of, unfinished


def export_encoder(run: Path, output: Path, format: str = "timm", weights: Weights = "online") -> str:
    """Writes the encoder of ``run``, or its moving average, to ``output``; returns the Python that loads it there.

    The keys are timm's names, which torchvision shares for ResNets. Before anything is written every key is loaded
    into the other library's model, which must give the same features.

    Raises:
        UserError: no such run or average, a suffix other than .safetensors, or an architecture that torchvision has
            not or builds in another way.
    """
    if output.suffix != ".safetensors":
        raise UserError(f"{output}: encoders are written as .safetensors; give a name that ends so")
    path = encoder_of(run, weights)
    state, spec = read_encoder(path)
    if spec.backbone.startswith(OWN):
        raise UserError(
            f"{run} trained a module of your own, {spec.backbone.removeprefix(OWN)}, which other libraries have not: "
            f"load safetensors.torch.load_file({str(path)!r}) into one like it"
        )
    encoder = spec.build().eval()
    load_all_keys(encoder, state, str(path))
    model, lines = (_torchvision if format == "torchvision" else _timm)(spec)
    if spec.stem in SMALL_STEMS or (format == "torchvision" and spec.channels != 3 and hasattr(model, "conv1")):
        conv = encoder.get_submodule("conv1")
        assert isinstance(conv, nn.Conv2d)
        sizes = conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0], conv.padding[0]
        model.conv1 = nn.Conv2d(*sizes, bias=False)
        lines.append(f"model.conv1 = torch.nn.Conv2d({', '.join(map(str, sizes))}, bias=False)")
    if spec.stem in SMALL_STEMS:
        model.maxpool = nn.Identity()
        lines.append("model.maxpool = torch.nn.Identity()")
    source = f"{format}'s {spec.backbone}"
    if format == "torchvision":
        source += f" is another net than {spec.title} (export for timm)"
    _load_alike(model, encoder, spec, source)
    save_encoder(output, encoder, spec)
    lines.append(f"model.load_state_dict(safetensors.torch.load_file({str(output)!r}))  # every key fits")
    mean, std = ([round(value, 6) for value in values] for values in (spec.mean, spec.std))
    scale = f"intensities {' '.join(f'{value:g}' for value in spec.range)} as" if spec.range else "images in"
    feed = f"{scale} [0, 1], {spec.size} pixels, minus {mean}, over {std}"
    lines.append(f"# {spec.title}{', averaged weights' * (weights == 'averaged')}; feed it {feed}")
    return "\n".join([f"# {told}", *lines] if (told := unfinished(run)) else lines)


def _timm(spec: EncoderSpec) -> tuple[nn.Module, list[str]]:
    import timm

    chosen = sized_options(spec.backbone, spec.size, spec.options)
    options = "".join(f", {key}={value!r}" for key, value in chosen.items())
    call = f"timm.create_model({spec.backbone!r}, num_classes=0, in_chans={spec.channels}{options})"
    model = timm.create_model(spec.backbone, num_classes=0, in_chans=spec.channels, **chosen)
    return model, ["import safetensors.torch, timm, torch", f"model = {call}"]


def _torchvision(spec: EncoderSpec) -> tuple[nn.Module, list[str]]:
    from torchvision import models

    if spec.backbone not in models.list_models(module=models):
        raise UserError(f"torchvision has no {spec.backbone}; export for timm")
    model = models.get_model(spec.backbone)
    lines = ["import safetensors.torch, torch, torchvision", f"model = torchvision.models.{spec.backbone}()"]
    for head in ("fc", "classifier"):
        if hasattr(model, head):
            setattr(model, head, nn.Identity())
            lines.append(f"model.{head} = torch.nn.Identity()")
    return model, lines


def _load_alike(model: nn.Module, encoder: nn.Module, spec: EncoderSpec, source: str) -> None:
    """Loads the weights of ``encoder`` into ``model`` of another library.

    Raises:
        UserError: keys or shapes differ, or features of random images.
    """
    load_all_keys(model, encoder.state_dict(), source)
    x = torch.randn(2, spec.channels, spec.size, spec.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = encoder(x), model.eval()(x)
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * ours.abs().max().item()):
        raise UserError(f"{source}: it takes the weights but gives other features")
